"""Tensors of a forward pass that are made of parameters and constants alone.

A table read by an index, the exponential of a logit scale, biases put together, the output of a
small network over a constant table: none of them depends on an image. Where such an expression
meets the images, its per-image gradients are those of any parameter there, and the ones of the
parameters behind it follow by a backward pass through the little graph between them
(`materialised.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from gradbench.gradients.reordering import INDEXED, plain_index
from gradbench.gradients.rules.broadcast import functions_named

Reshape = Callable[[Tensor], Tensor]

# functions that give a tensor's elements another shape or order
_RESHAPES = "view view_as reshape flatten unflatten contiguous clone unsqueeze squeeze permute"
RESHAPES: frozenset[Callable] = frozenset(functions_named(*_RESHAPES.split())) | {
    *functions_named("transpose", "t", "movedim"),
    *(Tensor.T.__get__, Tensor.mT.__get__, Tensor.__getitem__),
}


@dataclass(frozen=True, eq=False)
class Expression:
    """A tensor that does not depend on the images: a parameter, a constant, or made of them.

    Where it holds the elements of one parameter in another shape or order, `reshape` brings values
    of the parameter's shape into this one: then no gradient of it need be materialised.
    """

    tensor: Tensor  # kept, or another one could come by its id
    version: int  # number of in-place changes when it was made
    parameters: frozenset[Tensor] = frozenset()  # the requested ones that it is made of
    reshape: Reshape | None = None

    @property
    def requested(self) -> bool:
        """Whether a requested parameter acts through it."""
        return bool(self.parameters) and self.tensor.requires_grad


class Expressions:
    """The tensors of one forward pass that do not depend on the images.

    Any tensor that is neither held by the network nor made of such tensors counts as depending on
    them: a random tensor, say. Tensors that are held and not requested are constants.
    """

    def __init__(self, held: Iterable[Tensor], parameters: Iterable[Tensor]):
        requested = frozenset(parameters)
        self._known: dict[int, Expression] = {}
        for value in held:
            own = value in requested
            self._add(value, frozenset([value] if own else []), (lambda v: v) if own else None)

    def find(self, value: Any) -> Expression | None:
        """Return a tensor's expression; None where it may depend on the images."""
        known = self._known.get(id(value))
        return known if known is not None and value._version == known.version else None

    def follow(
        self, function: Callable, arguments: Sequence[Any], keywords: Mapping[str, Any]
    ) -> Any:
        """Call a function of expressions alone, add its results to them, and return these."""
        before = [(t, t._version) for t in tensors_in((arguments, keywords)) if self.find(t)]
        parameters = frozenset().union(*(self.find(t).parameters for t, _ in before))
        reshape = self._reshape(function, arguments, keywords)
        result = function(*arguments, **keywords)
        for tensor, version in before:
            if tensor._version != version:
                self._changed(tensor, version, parameters)
        for tensor in tensors_in(result):
            if not any(tensor is old for old, _ in before):
                # An index may leave elements out.
                whole = reshape is not None and tensor.numel() == arguments[0].numel()
                self._add(tensor, parameters, reshape if whole else None)
        return result

    def _add(self, tensor: Tensor, parameters: frozenset[Tensor], reshape: Reshape | None) -> None:
        # Inference tensors count no changes; a function that reads complex ones has no rule.
        if not (tensor.is_inference() or tensor.is_complex()):
            parameters = parameters if tensor.requires_grad else frozenset()
            self._known[id(tensor)] = Expression(tensor, tensor._version, parameters, reshape)

    def _changed(self, tensor: Tensor, version: int, parameters: frozenset[Tensor]) -> None:
        """Note an in-place change in a tensor and in all that share its memory."""
        # Views see the change, too: biases are put together by writing into parts of one tensor.
        memory = tensor.untyped_storage()._cdata
        for key, known in list(self._known.items()):
            if known.version == version and known.tensor.untyped_storage()._cdata == memory:
                self._known[key] = replace(
                    known,
                    version=known.tensor._version,
                    parameters=known.parameters | parameters,
                    reshape=None,
                )

    def _reshape(
        self, function: Callable, arguments: Sequence[Any], keywords: Mapping[str, Any]
    ) -> Reshape | None:
        """Return how a function that only reshapes a parameter reshapes any values."""
        if function not in RESHAPES or (function in INDEXED and not plain_index(arguments[1])):
            return None
        first = self.find(arguments[0]) if arguments else None
        if first is None or first.reshape is None:
            return None
        return lambda values: function(first.reshape(values), *arguments[1:], **keywords)


def held_by(model: nn.Module) -> list[Tensor]:
    """Return the tensors that a network holds: parameters, buffers and plain attributes."""
    return [
        value
        for module in model.modules()
        for place in (module._parameters, module._buffers, vars(module))
        for value in place.values()
        if isinstance(value, Tensor)
    ]


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Yield the tensors among some values, also within lists, tuples and dictionaries."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from tensors_in(value)
    elif isinstance(values, dict):
        for value in values.values():
            yield from tensors_in(value)
