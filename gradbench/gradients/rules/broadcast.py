"""Bare parameters that are added to, multiplied with or copied for every image."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from gradbench.gradients.rules.base import Rule


class Broadcast(Rule):
    """A parameter that meets the images by broadcasting: its gradient is a sum of delta (times x).

    Args:
        kind: name of the operation.
        shape: the parameter's shape with ones in front, as many dimensions as the result; the first
            is one, so that every image meets the same values.
        multiplies: whether the result is x times the parameter.
        sign: -1 where the parameter is subtracted.
    """

    rows = False

    def __init__(
        self, kind: str, shape: tuple[int, ...], multiplies: bool = False, sign: float = 1.0
    ):
        self.kind, self.shape, self.multiplies, self.sign = kind, shape, multiplies, sign
        self.reads_input = multiplies

    def gradients(self, roles: Mapping[str, object], x: Tensor, delta: Tensor) -> dict[str, Tensor]:
        """Return the parameter's gradients, (B, *shape)."""
        terms = delta * x if self.multiplies else delta
        terms = terms.sum_to_size(len(delta), *self.shape[1:])
        return {"weight": terms * self.sign if self.sign != 1 else terms}


class Slope(Broadcast):
    """The slope of a PReLU below zero: the gradient is the sum of min(x, 0) delta.

    Args:
        slopes: one, or one per channel.
        dimensions: of x.
    """

    def __init__(self, slopes: int, dimensions: int):
        super().__init__("prelu", (1, slopes, *(1,) * (dimensions - 2)), multiplies=True)

    def gradients(self, roles: Mapping[str, object], x: Tensor, delta: Tensor) -> dict[str, Tensor]:
        """Return the gradients of the slopes, (B, slopes)."""
        return super().gradients(roles, x.clamp_max(0), delta)
