"""Linear filters as sums in a fixed order: the same bits in any batch, on any number of threads.

No convolution of a library is used, since those may add in another order for another batch, or
fuse products with sums on another processor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def border(places: Tensor, size: int, mode: str) -> Tensor:
    """Return integer places on an axis, those outside of [0, size) led back inside.

    Modes are `nearest` (a a | a b c | c c), `reflect` (b a | a b c | c b) and `mirror`
    (c b | a b c | b a).
    """
    if mode == "nearest" or size == 1:
        return places.clamp(0, size - 1)
    if mode == "reflect":
        turned = places.remainder(2 * size)
        return torch.minimum(turned, 2 * size - 1 - turned)
    turned = places.remainder(2 * size - 2)
    return torch.minimum(turned, 2 * size - 2 - turned)


def extended(images: Tensor, radius: int, dim: int, mode: str = "nearest") -> Tensor:
    """Return images with `radius` more pixels at both ends of an axis, see `border`."""
    size = images.shape[dim]
    places = border(torch.arange(-radius, size + radius), size, mode)
    return images.index_select(dim, places.to(images.device))


@lru_cache(maxsize=64)
def gaussian_weights(deviation: float, truncate: float = 4.0) -> tuple[float, ...]:
    """Return the weights of a Gaussian, cut off at `truncate` deviations, of sum one."""
    radius = int(truncate * deviation + 0.5)
    if radius == 0:
        return (1.0,)
    weights = np.exp(-0.5 / (deviation * deviation) * np.arange(-radius, radius + 1) ** 2)
    return tuple(weights / weights.sum())


def gaussian(
    images: Tensor, deviation: float, mode: str = "nearest", truncate: float = 4.0
) -> Tensor:
    """Return images (..., H, W) smoothed by a Gaussian along both axes."""
    weights = gaussian_weights(float(deviation), float(truncate))
    return _along(_along(images, weights, -2, mode), weights, -1, mode)


def _along(images: Tensor, weights: Sequence[float], dim: int, mode: str) -> Tensor:
    """Correlate with a symmetric filter of odd length along an axis.

    The centre first, then pairs from the outside in, as scipy does. A filter longer than the axis
    is folded back onto it.
    """
    radius = len(weights) // 2
    if radius == 0:
        return images * weights[0]
    size = images.shape[dim]
    if 2 * radius + 1 > 2 * size:
        return _folded(images, weights, dim, mode)
    padded = extended(images, radius, dim, mode)
    summed = padded.narrow(dim, radius, size) * weights[radius]
    for i in range(radius):
        pair = padded.narrow(dim, i, size) + padded.narrow(dim, 2 * radius - i, size)
        summed += pair.mul_(weights[i])
    return summed


def _folded(images: Tensor, weights: Sequence[float], dim: int, mode: str) -> Tensor:
    size, radius = images.shape[dim], len(weights) // 2
    places = border(torch.arange(size)[:, None] + torch.arange(-radius, radius + 1), size, mode)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size)[:, None], places.numpy()), np.asarray(weights)[None])
    columns = torch.from_numpy(matrix).to(images)
    summed = torch.zeros_like(images)
    shape = [size if i == dim % images.dim() else 1 for i in range(images.dim())]
    for k in range(size):
        summed += images.narrow(dim, k, 1) * columns[:, k].view(shape)
    return summed


def correlate(images: Tensor, kernel: np.ndarray) -> Tensor:
    """Correlate images (..., H, W), the border mirrored, with a small kernel of odd sides."""
    padded = images
    for dim, side in zip((-2, -1), kernel.shape):
        padded = extended(padded, side // 2, dim, "mirror")
    summed = torch.zeros_like(images)
    for i, j in zip(*np.nonzero(kernel)):
        part = padded.narrow(-2, int(i), images.shape[-2]).narrow(-1, int(j), images.shape[-1])
        summed += part * kernel[i, j].item()
    return summed


def ordered_sum(values: Tensor) -> Tensor:
    """Return the sum over the last axis, by halves: in an order that depends on its length alone.

    >>> ordered_sum(torch.tensor([[1.0, 2, 3], [4, 5, 6]]))
    tensor([ 6., 15.])
    """
    while values.shape[-1] > 1:
        half = math.ceil(values.shape[-1] / 2)
        left, right = values[..., :half], values[..., half:]
        values = torch.cat([left[..., : right.shape[-1]] + right, left[..., right.shape[-1] :]], -1)
    return values[..., 0]
