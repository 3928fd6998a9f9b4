"""Clouds: random height maps by the diamond-square algorithm."""

from __future__ import annotations

import torch
from torch import Tensor

from gradbench.challenges.counter import uniform


def plasma(keys: Tensor, size: int, decay: float) -> Tensor:
    """Return (B, size, size) float64 height maps in [0, 1] that join at opposite borders.

    Diamond-square (Fournier, Fussell and Carpenter 1982) on a torus: halving the step, the middles
    of squares and then of diamonds become the mean of their four corners, plus a random number
    whose spread falls with the square of `decay` from scale to scale.

    Args:
        keys: (B,) of the images.
        size: a power of two.
        decay: above 1; larger is smoother.
    """
    heights = torch.zeros(len(keys), size, size, dtype=_dtype(keys), device=keys.device)
    step, spread, stream = size, 100.0, 0
    while step >= 2:
        half, squares = step // 2, heights[:, ::step, ::step]
        shape = squares.shape[1:]

        def moved(total: Tensor, stream: int, spread: float = spread, shape=shape) -> Tensor:
            noise = uniform(keys, shape, stream).to(total.dtype).mul_(2).sub_(1)
            return total / 4 + noise * (spread * spread)

        pairs = squares + squares.roll(-1, 1)
        middles = moved(pairs + pairs.roll(-1, 2), stream)
        above = middles + middles.roll(1, 1) + squares + squares.roll(-1, 2)
        beside = middles + middles.roll(1, 2) + squares + squares.roll(-1, 1)
        heights[:, half::step, half::step] = middles
        heights[:, ::step, half::step] = moved(above, stream + 1)
        heights[:, half::step, ::step] = moved(beside, stream + 2)
        step, spread, stream = half, spread / decay, stream + 3
    heights -= heights.amin((1, 2), keepdim=True)
    return heights / heights.amax((1, 2), keepdim=True)


def covering(height: int, width: int) -> int:
    """Return the power of two that covers an image's sides.

    >>> covering(28, 28), covering(224, 200), covering(64, 64)
    (32, 256, 64)
    """
    return 1 << (max(height, width) - 1).bit_length()


def _dtype(keys: Tensor) -> torch.dtype:
    return torch.float32 if keys.device.type == "mps" else torch.float64
