"""Normalisations: scale and shift act on each channel, or each element, of x_hat.

The gradient of the scale is the sum over positions of x_hat delta, that of the shift the sum of
delta. x_hat is formed before it is summed: the shorter form sum(x delta) - mean sum(delta) loses
its digits where the mean is large beside the deviation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from gradbench.gradients.rules.base import Rule, blocks, channels_last


class _PerChannel(Rule):
    """Scale and shift of channels, the second dimension of x and delta."""

    def gradients(self, roles: Mapping[str, object], x: Tensor, delta: Tensor) -> dict[str, Tensor]:
        """Return the gradients of weight and bias, (B, C) each."""
        found = {role: delta.new_empty(delta.shape[:2]) for role in roles}
        for block in blocks(len(delta), delta[0].numel(), delta.device):
            d = channels_last(delta[block])
            if "bias" in roles:
                found["bias"][block] = d.sum(1)
            if "weight" in roles:
                found["weight"][block] = self.normalised(x[block]).mul_(d).sum(1)
        if "weight" in roles:
            found["weight"] = self.finish(found["weight"])
        return found

    def normalised(self, x: Tensor) -> Tensor:
        """Return x_hat up to what `finish` adds, as a new tensor (B, positions, C)."""
        raise NotImplementedError

    def finish(self, weight: Tensor) -> Tensor:
        """Apply what is common to all positions of a channel, (B, C)."""
        return weight


class BatchNorm(_PerChannel):
    """Batch normalisation in evaluation mode, x_hat = (x - mean) / sqrt(variance + eps).

    Args:
        mean: running mean, (C,).
        variance: running variance, (C,).
        eps: constant added to the variance.
    """

    kind = "batch_norm"

    def __init__(self, mean: Tensor, variance: Tensor, eps: float):
        self.mean, self.variance, self.eps = mean, variance, eps

    def compiled_gradients(
        self, roles: Mapping[str, object], x: Tensor, delta: Tensor
    ) -> dict[str, Tensor]:
        """Return the gradients of weight and bias, (B, C) each, from one loop over both tensors."""
        weight, bias = _compiled()(x, delta, self.mean.to(x))
        both = {"weight": self.finish(weight), "bias": bias}
        return {role: both[role] for role in roles}

    def normalised(self, x: Tensor) -> Tensor:
        """Return x - mean."""
        return channels_last(x) - self.mean.to(x)

    def finish(self, weight: Tensor) -> Tensor:
        """Divide by the deviation."""
        return weight * (self.variance.to(weight) + self.eps).rsqrt()


def _sums(x: Tensor, delta: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    delta = channels_last(delta)
    return ((channels_last(x) - mean) * delta).sum(1), delta.sum(1)


@cache
def _compiled() -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return both sums of a batch normalisation as one compiled loop."""
    return torch.compile(_sums, dynamic=True)


class GroupNorm(_PerChannel):
    """Group normalisation; an instance normalisation has one group per channel.

    Args:
        groups: number of groups; None for one per channel.
        eps: constant added to the variance.
    """

    def __init__(self, groups: int | None, eps: float):
        self.groups, self.eps = groups, eps
        self.kind = "instance_norm" if groups is None else "group_norm"

    def normalised(self, x: Tensor) -> Tensor:
        """Return x_hat."""
        return channels_last(F.group_norm(x, self.groups or x.shape[1], eps=self.eps))


class LayerNorm(Rule):
    """Layer normalisation over the last dimensions, or its root-mean-square form.

    Args:
        shape: sizes of the normalised dimensions.
        eps: constant added to the variance.
        centred: whether the mean is subtracted; False for the root-mean-square form.
    """

    rows = True

    def __init__(self, shape: tuple[int, ...], eps: float | None, centred: bool = True):
        self.shape, self.eps, self.centred = shape, eps, centred
        self.kind = "layer_norm" if centred else "rms_norm"

    def gradients(self, roles: Mapping[str, object], x: Tensor, delta: Tensor) -> dict[str, Tensor]:
        """Return the gradients of weight and bias, (B, *shape) each."""
        found = {role: delta.new_empty(len(delta), *self.shape) for role in roles}
        normalise = F.layer_norm if self.centred else F.rms_norm
        for block in blocks(len(delta), delta[0].numel(), delta.device):
            d = delta[block]
            if "bias" in roles:
                found["bias"][block] = self._sum(d)
            if "weight" in roles:
                x_hat = normalise(x[block], self.shape, eps=self.eps)
                found["weight"][block] = self._sum(x_hat.mul_(d))
        return found

    def _sum(self, values: Tensor) -> Tensor:
        return values.reshape(len(values), -1, *self.shape).sum(1)
