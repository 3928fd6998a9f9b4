"""What one of several processes knows of the others: its share of the work, sums over all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, distributed


@dataclass
class Worker:
    """One of `of` processes that work together, or a process that works alone.

    Attributes:
        rank: its number from 0; rank 0 alone writes, tells progress and hands results over.
        of: how many there are.
        device: that it works on.
        kept: what it was given to keep for later calls, by name.
    """

    rank: int
    of: int
    device: torch.device
    kept: dict[str, Any] = field(default_factory=dict)

    @property
    def first(self) -> bool:
        """Whether it is rank 0."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Return the part of `count` things that is its own: in order of ranks, nearly equal.

        >>> [Worker(rank, 3, torch.device("cpu")).share(7) for rank in range(3)]
        [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]
        """
        return slice(self.rank * count // self.of, (self.rank + 1) * count // self.of)

    def sums(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the sums over all processes of tensors of one type, by a single message.

        Alone, they are the tensors themselves.
        """
        if self.of == 1:
            return list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.view(tensor.shape) for part, tensor in zip(parts, tensors)]

    def gather(self, thing: Any) -> list[Any]:
        """Return the things of all processes by rank to rank 0, an empty list to the others."""
        things: list[Any] = [None] * self.of if self.first else []
        distributed.gather_object(thing, things or None, dst=0)
        return things


def alone(device: torch.device) -> Worker:
    """Return the worker of nobody: its share is everything."""
    return Worker(0, 1, device)
