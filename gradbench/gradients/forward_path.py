"""The calls of a forward pass, one by one: the engine's checks hold for the path that they saw.

A network may be switched by something that no look at its modules shows: an object that it holds, a
variable of a closure, a tensor that was changed in place. The functions that it calls show it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_EXACT = (int, str, type(...), torch.dtype, torch.device, torch.layout, torch.memory_format)


class ForwardPath:
    """The functions of a forward pass with the shapes and settings that they were given.

    Two passes of equally many images with equal `steps` lay their images out alike; with equal
    `values` they also used the same numbers and the same tensors from outside (weights, constants).
    """

    def __init__(self):
        self.steps: list[tuple] = []
        self.values: list[Any] = []
        self._own: set[int] = set()  # ids of the tensors that this pass has made

    def start(self, images: Tensor) -> Tensor:
        """Return the images, taken for a tensor of this pass."""
        self._own.add(id(images))
        return images

    def add(self, func: Callable, args: Sequence, kwargs: Mapping | None, result: Any) -> None:
        """Add a call of a function."""
        step = [func]
        for argument in args:
            self._read(argument, step)
        if kwargs:
            for name, argument in kwargs.items():
                step.append(name)
                self._read(argument, step)
        self.steps.append(tuple(step))
        if isinstance(result, Tensor):
            self._own.add(id(result))
        elif isinstance(result, tuple | list):
            self._own.update(id(part) for part in result)

    def _read(self, argument: Any, step: list) -> None:
        # By hand, not by tree_leaves: this runs for every function of every pass.
        if isinstance(argument, Tensor):
            step.append(argument.shape)
            if id(argument) not in self._own:
                self.values.append(_identity(argument))
        elif isinstance(argument, _EXACT) or argument is None:
            step.append(argument)
        elif isinstance(argument, float | complex):
            self.values.append(argument)
        elif isinstance(argument, tuple | list):
            step.append(len(argument))
            for part in argument:
                self._read(part, step)
        elif isinstance(argument, slice):
            for part in (argument.start, argument.stop, argument.step):
                self._read(part, step)
        else:
            step.append(type(argument))


def _identity(tensor: Tensor) -> tuple[int, int]:
    """Return numbers that change when another tensor, or other content, is in a tensor's place."""
    try:
        return tensor.data_ptr(), tensor._version
    except RuntimeError:  # without a storage, or made in inference mode
        return id(tensor), 0
