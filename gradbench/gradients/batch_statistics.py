"""Refuses a normalisation of images by statistics of the batch, but not one of weights by theirs.

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


def uses_batch_statistics(func: Callable, args: Sequence, kwargs: Mapping[str, Any]) -> bool:
    """Whether a call normalises its input by the statistics of that input."""
    if func not in _NORMS:
        return False
    first, flag = _NORMS[func]

    def argument(position: int, name: str) -> Any:
        return kwargs.get(name, args[position] if len(args) > position else None)

    means = argument(first, "running_mean"), argument(first + 1, "running_var")
    return bool(argument(flag, "training")) or any(m is None for m in means)


def refuse_batch_statistics(forward: Callable[[Tensor], Any], image: Tensor) -> None:
    """Run a forward pass of one image, and refuse statistics of the batch that normalise it."""
    with torch.no_grad(), _MadeOfImages(image) as tracker, _Refusal(tracker):
        forward(image)


class _MadeOfImages(TorchDispatchMode):
    """Knows the memory that holds something made of the images, whatever the steps between.

    It sees the kernels, below autograd: also what is written in place, or without a graph.
    """

    def __init__(self, images: Tensor):
        super().__init__()
        self.tensors: list[Tensor] = []  # kept, or other tensors could come by their memory
        self.memory: set[int] = set()
        self._mark(images)

    def holds(self, value: Any) -> bool:
        """Whether a value is a tensor made of the images."""
        return isinstance(value, Tensor) and _memory(value) in self.memory

    def _mark(self, value: Any) -> None:
        if isinstance(value, Tensor):
            self.tensors.append(value)
            self.memory.add(_memory(value))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the function; what it returns or changes is made of what it read."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if any(map(self.holds, tree_leaves((args, kwargs)))):
            written = [
                value
                for value, slot in zip(args, func._schema.arguments)
                if slot.alias_info is not None and slot.alias_info.is_write
            ]
            for value in tree_leaves((result, written)):
                self._mark(value)
        return result


class _Refusal(TorchFunctionMode):
    def __init__(self, tracker: _MadeOfImages):
        super().__init__()
        self.tracker = tracker

    def __torch_function__(
        self, func: Callable, types: Any, args: Sequence = (), kwargs: Any = None
    ) -> Any:
        """Run the function, unless it normalises images by statistics of the batch."""
        kwargs = kwargs or {}
        normalised = kwargs.get("input", args[0] if args else None)
        if uses_batch_statistics(func, args, kwargs) and self.tracker.holds(normalised):
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
