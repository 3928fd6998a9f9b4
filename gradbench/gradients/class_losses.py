"""Gradients of losses against one-hot labels with respect to the logits, without cancellation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def sum_of_others(values: Tensor) -> Tensor:
    """For every entry of a row the sum of the others, (B, N), of values that are not negative.

    The total less the entry cancels for the largest entry alone; its others are summed themselves.
    """
    largest = values.argmax(1, keepdim=True)
    others = values.sum(1, keepdim=True) - values
    return others.scatter(1, largest, values.scatter(1, largest, 0).sum(1, keepdim=True))


def _bce(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    wrong = -torch.sigmoid(-z) / z.shape[1]  # sigmoid(z) - 1 would cancel where z is large
    return torch.sigmoid(z) / z.shape[1], wrong, wrong


def _mse(z: Tensor, target: Tensor | float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    wrong = 2 * (z - target) / z.shape[1]
    return 2 * z / z.shape[1], wrong, wrong


def _mse_max(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _mse(z, z.amax(1, keepdim=True))


def _ce(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    p = torch.softmax(z, dim=1)
    return p, -sum_of_others(p), z.shape[1] * p - 1  # p_i - 1 would cancel where p_i is near 1


CLASS_LOSSES: dict[str, Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]] = {
    "bce": _bce,
    "mse": _mse,
    "mse_max": _mse_max,
    "ce": _ce,
}
"""Name -> function of z giving dJ/dz_j for another class than j, for class j, and for all ones."""
