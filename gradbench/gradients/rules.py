"""Squared norms of per-image gradients as functions of a layer's input x and output gradient delta.

Every function returns one value per image, shape (B,), and never keeps the gradient itself.
Convolutions have a file of their own, convolution.py.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def squared_rows(values: Tensor) -> Tensor:
    """Sum of squares of each row, (B, ...) -> (B,)."""
    return torch.linalg.vector_norm(values.flatten(1), dim=1).square()


def channel_bias_norm(delta: Tensor) -> Tensor:
    """Bias of a convolution, batch or group normalisation: ||sum over positions of delta||^2.

    Args:
        delta: (B, P, ...), channels second.
    """
    return squared_rows(delta.reshape(*delta.shape[:2], -1).sum(2))


def linear_weight_norm(x: Tensor, delta: Tensor, route: str | None = None) -> Tensor:
    """Weight of a linear layer: ||sum over rows of delta_t x_t^T||^2.

    With one row per image this is ||x||^2 ||delta||^2. With T rows the product itself costs
    T C P multiplications (direct), the Gram matrices of both factors T^2 (C + P) (gram).

    Args:
        x: input, (B, ..., C).
        delta: gradient with respect to the output, (B, ..., P).
        route: direct or gram; None takes the cheaper one.
    """
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    delta = delta.reshape(*x.shape[:2], -1)
    rows, inputs, outputs = x.shape[1], x.shape[2], delta.shape[2]
    if rows == 1:
        return squared_rows(x) * squared_rows(delta)
    cheaper = "gram" if rows * (inputs + outputs) < inputs * outputs else "direct"
    if (route or cheaper) == "gram":
        grams = torch.bmm(x, x.transpose(1, 2)) * torch.bmm(delta, delta.transpose(1, 2))
        return grams.flatten(1).sum(1).clamp_min(0)
    # One image at a time: the product is as large as the weight.
    return torch.stack([(d.T @ a).square().sum() for a, d in zip(x, delta)])


def linear_bias_norm(delta: Tensor) -> Tensor:
    """Bias of a linear layer, delta (B, ..., P): ||sum over rows of delta||^2."""
    return squared_rows(delta.reshape(delta.shape[0], -1, delta.shape[-1]).sum(1))


def batch_norm_weight_norm(
    x: Tensor, delta: Tensor, mean: Tensor, variance: Tensor, eps: float
) -> Tensor:
    """Scale of a batch normalisation in evaluation mode: ||sum over positions of x_hat delta||^2.

    Args:
        x: input, (B, C, ...).
        delta: gradient with respect to the output, of the same shape.
        mean: running mean, (C,).
        variance: running variance, (C,).
        eps: constant added to the variance.
    """
    x, delta = (t.reshape(*t.shape[:2], -1) for t in (x, delta))
    centred = x - mean.to(x).view(-1, 1)
    return squared_rows(centred.mul_(delta).sum(2) * (variance.to(x) + eps).rsqrt())


def group_norm_weight_norm(x: Tensor, delta: Tensor, groups: int, eps: float) -> Tensor:
    """Scale of a group normalisation, x and delta (B, C, ...)."""
    return channel_bias_norm(F.group_norm(x, groups, eps=eps) * delta)


def layer_norm_weight_norm(x: Tensor, delta: Tensor, shape: tuple[int, ...], eps: float) -> Tensor:
    """Scale of a layer normalisation over the last dimensions, x and delta (B, ..., *shape)."""
    return layer_norm_bias_norm(F.layer_norm(x, shape, eps=eps) * delta, shape)


def layer_norm_bias_norm(delta: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Shift of a layer normalisation: ||sum over the dimensions between of delta||^2."""
    return squared_rows(delta.reshape(delta.shape[0], -1, *shape).sum(1))
