"""Which tensors of a forward pass are made of parameters and constants alone.

A table read by an index, the exponential of a logit scale, biases put together, the output of a
small network over a constant table: none of them depends on an image. Where such a tensor meets the
images, its per-image gradients are those of any parameter there, and the ones of the parameters
behind it follow by a backward pass through the little graph between them (`formed.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from gradbench.gradients.meetings import RESHAPES
from gradbench.gradients.movers import INDEXED, plain_index

Steps = tuple[Callable[[Tensor], Tensor], ...]


@dataclass(frozen=True, eq=False)
class Source:
    """A tensor that does not depend on the images.

    Args:
        tensor: itself; kept, or another one could come by its id.
        version: number of in-place changes when it was made.
        parameters: the asked parameters that it is made of.
        steps: where it holds the elements of one parameter in another shape or order, the functions
            that bring them there; None where it holds anything else.
    """

    tensor: Tensor
    version: int
    parameters: frozenset[Tensor] = frozenset()
    steps: Steps | None = None

    @property
    def asked(self) -> bool:
        """Whether a parameter that is asked for acts through it."""
        return bool(self.parameters) and self.tensor.requires_grad


class Sources:
    """The tensors of one forward pass that do not depend on the images.

    What is neither held by the network nor made of such tensors counts as depending on them.

    Args:
        held: the tensors that the network holds.
        parameters: the asked parameters; the other tensors are constants.
    """

    def __init__(self, held: Iterable[Tensor], parameters: Iterable[Tensor]):
        asked = frozenset(parameters)
        self._known: dict[int, Source] = {}
        for value in held:
            own = value in asked
            self._add(value, frozenset([value] if own else []), () if own else None)

    def find(self, value: Any) -> Source | None:
        """Return the source that a tensor is; None where it may depend on the images."""
        found = self._known.get(id(value))
        return found if found is not None and value._version == found.version else None

    def follow(
        self, function: Callable, arguments: Sequence[Any], keywords: Mapping[str, Any]
    ) -> Any:
        """Call a function of sources alone and note its results; returns them."""
        before = [(t, t._version) for t in tensors((arguments, keywords)) if self.find(t)]
        parameters = frozenset().union(*(self.find(t).parameters for t, _ in before))
        reshaped = self._reshaped(function, arguments, keywords)
        result = function(*arguments, **keywords)
        for tensor, version in before:
            if tensor._version != version:
                self._changed(tensor, version, parameters)
        for tensor in tensors(result):
            if not any(tensor is old for old, _ in before):
                whole = reshaped is not None and tensor.numel() == arguments[0].numel()
                self._add(tensor, parameters, reshaped if whole else None)
        return result

    def clear(self) -> None:
        """Let go of every tensor."""
        self._known.clear()

    def _add(self, tensor: Tensor, parameters: frozenset[Tensor], steps: Steps | None) -> None:
        # inference tensors count no changes; what meets complex ones has no rule
        if not (tensor.is_inference() or tensor.is_complex()):
            parameters = parameters if tensor.requires_grad else frozenset()
            self._known[id(tensor)] = Source(tensor, tensor._version, parameters, steps)

    def _changed(self, tensor: Tensor, version: int, parameters: frozenset[Tensor]) -> None:
        """Note an in-place change in a tensor and in all that share its memory."""
        memory = tensor.untyped_storage()._cdata
        for key, source in list(self._known.items()):
            if source.version == version and source.tensor.untyped_storage()._cdata == memory:
                self._known[key] = replace(
                    source,
                    version=source.tensor._version,
                    parameters=source.parameters | parameters,
                    steps=None,
                )

    def _reshaped(
        self, function: Callable, arguments: Sequence[Any], keywords: Mapping[str, Any]
    ) -> Steps | None:
        """Return the steps to the result of a function that only reshapes a parameter."""
        if function not in RESHAPES or (function in INDEXED and not plain_index(arguments[1])):
            return None
        source = self.find(arguments[0]) if arguments else None
        if source is None or source.steps is None:
            return None
        return (*source.steps, partial(_replay, function, tuple(arguments[1:]), dict(keywords)))


def held_by(model: nn.Module) -> list[Tensor]:
    """Return the tensors that a network holds: parameters, buffers and plain attributes."""
    return [
        value
        for module in model.modules()
        for place in (module._parameters, module._buffers, vars(module))
        for value in place.values()
        if isinstance(value, Tensor)
    ]


def tensors(values: Any) -> Iterator[Tensor]:
    """Yield the tensors among some values, also within lists, tuples and dictionaries."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from tensors(value)
    elif isinstance(values, dict):
        for value in values.values():
            yield from tensors(value)


def through(steps: Steps, values: Tensor) -> Tensor:
    """Bring values of a parameter's shape into the shape of the source."""
    for step in steps:
        values = step(values)
    return values


def _replay(function: Callable, arguments: tuple, keywords: dict, values: Tensor) -> Tensor:
    return function(values, *arguments, **keywords)
