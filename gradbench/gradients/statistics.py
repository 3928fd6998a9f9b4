"""Tells a normalisation of images by statistics of the batch from one of weights by their own.

Networks with standardised weights (Big Transfer, normaliser-free networks) call `batch_norm` in
training mode on a tensor made of parameters alone, which says nothing about other images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gradbench.errors import GradbenchError

# function -> positions of its running statistics and of the flag of training mode
_NORMS: dict[Callable, tuple[int, int]] = {F.batch_norm: (1, 5), torch.batch_norm: (3, 5)}


def of_its_own_statistics(func: Callable, args: Sequence, kwargs: Mapping[str, Any]) -> bool:
    """Whether a call normalises its input by the statistics of that input."""
    if func not in _NORMS:
        return False
    first, flag = _NORMS[func]

    def argument(position: int, name: str) -> Any:
        return kwargs.get(name, args[position] if len(args) > position else None)

    means = argument(first, "running_mean"), argument(first + 1, "running_var")
    return bool(argument(flag, "training")) or any(m is None for m in means)


def refuse_batch_statistics(forward: Callable[[Tensor], Any], image: Tensor) -> None:
    """Raise when a normalisation by its input's own statistics reads a tensor made of the images.

    Args:
        forward: the forward pass.
        image: one image.

    Raises:
        GradbenchError: then, as no image has a gradient of its own.
    """
    with torch.no_grad(), _MadeOf(image) as made, _Refusal(made):
        forward(image)


class _MadeOf(TorchDispatchMode):
    """Knows the memory that holds something made of a tensor, whatever the steps between."""

    def __init__(self, source: Tensor):
        super().__init__()
        self.kept: list[Tensor] = []  # or other tensors could come by their memory
        self.memory: set[int] = set()
        self._mark(source)

    def holds(self, value: Any) -> bool:
        """Whether a value is a tensor made of the source."""
        return isinstance(value, Tensor) and _memory(value) in self.memory

    def _mark(self, value: Any) -> None:
        if isinstance(value, Tensor):
            self.kept.append(value)
            self.memory.add(_memory(value))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the function; what it returns or changes is made of what it read."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        read = tree_leaves((args, kwargs))
        if any(self.holds(value) for value in read):
            for value in tree_leaves(result):
                self._mark(value)
            for value, slot in zip(args, func._schema.arguments):
                if slot.alias_info is not None and slot.alias_info.is_write:
                    for part in tree_leaves(value):
                        self._mark(part)
        return result


class _Refusal(TorchFunctionMode):
    def __init__(self, made: _MadeOf):
        super().__init__()
        self.made = made

    def __torch_function__(
        self, func: Callable, types: Any, args: Sequence = (), kwargs: Any = None
    ) -> Any:
        """Run the function, unless it uses statistics of the batch."""
        kwargs = kwargs or {}
        if of_its_own_statistics(func, args, kwargs):
            source = kwargs.get("input", args[0] if args else None)
            if self.made.holds(source):
                raise GradbenchError(
                    "a batch normalisation uses the statistics of the batch, so no image has a "
                    "gradient of its own: call model.eval() and give the layer running statistics"
                )
        return func(*args, **kwargs)


def _memory(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError):  # sparse tensors have none
        return id(tensor)
