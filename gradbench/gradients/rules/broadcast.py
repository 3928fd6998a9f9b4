"""Bare parameters that meet the images by broadcasting, or are copied for every image."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from gradbench.gradients.layout import Layout
from gradbench.gradients.rules.base import Rule


class Broadcast(Rule):
    """A parameter of which every row of the images has a copy: its gradient is that of the copies.

    Args:
        kind: name of the operation.
        shape: of a copy, as many dimensions as the copies have; the first stands for the rows.
    """

    reads_input = False

    def __init__(self, kind: str, shape: tuple[int, ...]):
        self.kind, self.shape = kind, shape

    def takes(self, layout: Layout) -> bool:
        """Whether the images are in the first dimension, or the only one."""
        return layout.dimension in (0, None)

    def gradients(self, roles: Mapping[str, object], x: Tensor, delta: Tensor) -> dict[str, Tensor]:
        """Return the parameter's gradients, (B, *shape)."""
        if delta.ndim > len(self.shape):  # several rows per image
            delta = delta.sum(1)
        return {"weight": delta.sum_to_size(len(delta), *self.shape[1:])}


class Slope(Rule):
    """The slope of a PReLU below zero: the gradient is the sum of min(x, 0) delta.

    Args:
        slopes: one, or one per channel.
    """

    kind = "prelu"

    def __init__(self, slopes: int):
        self.slopes = slopes

    def gradients(self, roles: Mapping[str, object], x: Tensor, delta: Tensor) -> dict[str, Tensor]:
        """Return the gradients of the slopes, (B, slopes)."""
        terms = (x.clamp_max(0) * delta).reshape(len(delta), delta.shape[1], -1).sum(2)
        return {"weight": terms.sum_to_size(len(terms), self.slopes)}
