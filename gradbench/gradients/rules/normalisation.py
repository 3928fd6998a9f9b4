"""Normalisations: scale and shift act on each channel, or each element, of x_hat.

The gradient of the scale is the sum over positions of x_hat delta, that of the shift the sum of
delta. x_hat is computed before it is summed: the shorter form sum(x delta) - mean sum(delta) loses
its digits where the mean is large beside the deviation.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from gradbench.gradients.rules.base import Roles, Rule, blocks, channels_last


class Normalisation(Rule):
    """The base of normalisations: sums of x_hat delta and of delta, a block of images at a time."""

    def small_gradients(self, roles: Roles, x: Tensor, delta: Tensor) -> dict[str, Tensor]:
        """Return the gradients of weight and bias, (B, *shape of the parameter) each."""
        gradients = {role: delta.new_empty(len(delta), *self.shape_of(delta)) for role in roles}
        for block in blocks(len(delta), delta[0].numel(), delta.device):
            d = self.positions(delta[block])
            if "bias" in roles:
                gradients["bias"][block] = d.sum(1)
            if "weight" in roles:
                gradients["weight"][block] = self.normalised(x[block]).mul_(d).sum(1)
        if "weight" in roles:
            gradients["weight"] = self.rescaled(gradients["weight"])
        return gradients

    def shape_of(self, delta: Tensor) -> tuple[int, ...]:
        """Return the shape of weight and bias: one number per channel."""
        return (delta.shape[1],)

    def positions(self, values: Tensor) -> Tensor:
        """Return values as (B, positions, *shape of the parameter)."""
        return channels_last(values)

    def normalised(self, x: Tensor) -> Tensor:
        """Return x_hat, but for what `rescaled` adds, as a new tensor laid out by `positions`."""
        raise NotImplementedError

    def rescaled(self, weight: Tensor) -> Tensor:
        """Apply to the sums what is common to all positions of a channel, (B, C)."""
        return weight


class BatchNorm(Normalisation):
    """Batch normalisation in evaluation mode, x_hat = (x - mean) / sqrt(variance + eps)."""

    kind = "batch_norm"

    def __init__(self, mean: Tensor, variance: Tensor, eps: float):
        self.mean, self.variance, self.eps = mean, variance, eps

    def normalised(self, x: Tensor) -> Tensor:
        """Return x - mean."""
        return channels_last(x) - self.mean.to(x)

    def rescaled(self, weight: Tensor) -> Tensor:
        """Divide by the deviation: once per channel is cheaper than at every position."""
        return weight * (self.variance.to(weight) + self.eps).rsqrt()


class GroupNorm(Normalisation):
    """Group normalisation; `groups` is None for an instance normalisation, one per channel."""

    def __init__(self, groups: int | None, eps: float):
        self.groups, self.eps = groups, eps
        self.kind = "instance_norm" if groups is None else "group_norm"

    def normalised(self, x: Tensor) -> Tensor:
        """Return x_hat."""
        return channels_last(F.group_norm(x, self.groups or x.shape[1], eps=self.eps))


class LayerNorm(Normalisation):
    """Layer normalisation over the last dimensions, or its root-mean-square form, not `centred`."""

    rows = True

    def __init__(self, shape: tuple[int, ...], eps: float | None, centred: bool = True):
        self.shape, self.eps = shape, eps
        self.function = F.layer_norm if centred else F.rms_norm
        self.kind = "layer_norm" if centred else "rms_norm"

    def shape_of(self, delta: Tensor) -> tuple[int, ...]:
        """Return the shape of weight and bias: that of the normalised dimensions."""
        return self.shape

    def positions(self, values: Tensor) -> Tensor:
        """Return values as (B, rows, *shape)."""
        return values.reshape(len(values), -1, *self.shape)

    def normalised(self, x: Tensor) -> Tensor:
        """Return x_hat."""
        return self.positions(self.function(x, self.shape, eps=self.eps))
