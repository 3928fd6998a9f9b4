"""Images read at other places: zoomed, moved by whole pixels along a line, or between pixels."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from gradbench.challenges.corruptions.filters import border


@lru_cache(maxsize=512)
def zoom_matrix(size: int, factor: float) -> np.ndarray:
    """Return the (size, size) weights by which an axis is cut to its middle and enlarged again.

    The middle ceil(size / factor) pixels are spread over round(factor times as many) places whose
    ends are the ends of the cut, with linear interpolation, and the middle `size` of those kept.
    """
    cut = math.ceil(size / factor)
    top = (size - cut) // 2
    wide = round(cut * factor)
    trim = (wide - size) // 2
    places = np.arange(trim, trim + size) * ((cut - 1) / (wide - 1) if wide > 1 else 0.0)
    low = np.minimum(places.astype(int), max(cut - 2, 0))
    weights = np.zeros((size, size))
    rows = np.arange(size)
    weights[rows, top + low] += 1 - (places - low)
    weights[rows, top + np.minimum(low + 1, cut - 1)] += places - low
    return weights


@lru_cache(maxsize=2)
def mean_of_zooms(height: int, width: int, factors: tuple[float, ...]) -> sparse.csr_matrix:
    """Return the (H W, H W) weights of the mean of an image and of its zooms.

    A product with it adds the pixels of a row in their order, one after another.
    """
    total = sparse.identity(height * width, format="csr")
    for factor in factors:
        rows, columns = (sparse.csr_matrix(zoom_matrix(n, factor)) for n in (height, width))
        total = total + sparse.kron(rows, columns, format="csr")
    total = sparse.csr_matrix(total / (len(factors) + 1))
    total.sort_indices()
    return total


def zoomed(planes: Tensor, factor: float) -> Tensor:
    """Return (B, H, W) planes cut to their middle and enlarged again, see `zoom_matrix`."""
    for dim in (-2, -1):
        weights = zoom_matrix(planes.shape[dim], float(factor))
        low = torch.from_numpy((weights != 0).argmax(1)).to(planes.device)
        high = (low + 1).clamp_(max=planes.shape[dim] - 1)
        shape = (-1, 1) if dim == -2 else (-1,)
        rows = torch.arange(len(weights))
        share = torch.from_numpy(weights)[rows, low.cpu()].to(planes).view(shape)
        below, above = planes.index_select(dim, low), planes.index_select(dim, high)
        planes = below * share + above * (1 - share)
    return planes


def trail(images: Tensor, angles: Tensor, radius: int, deviation: float) -> Tensor:
    """Blur along a line that begins at each pixel and runs in the direction of the image's angle.

    ImageMagick's motion blur: 2 radius + 1 whole pixels nearest to the line, those outside of the
    image led back to its edge, weighted by half a Gaussian.

    Differs from the paper: written anew after ImageMagick's formula, in floating point throughout.
    Images are (B, C, H, W), angles (B,) in degrees; the deviation of the Gaussian is in pixels.
    """
    length = 2 * int(radius) + 1
    weights = np.exp(-(np.arange(length) ** 2) / (2 * deviation**2))
    weights /= weights.sum()
    radians = angles.double().cpu().deg2rad()  # places must not differ between devices
    steps = torch.arange(length, dtype=torch.float64)[:, None]
    down, right = ((steps * f(radians) - 0.5).ceil().long() for f in (torch.sin, torch.cos))
    count, channels, height, width = images.shape
    flat = images.flatten(2)
    rows, columns = torch.arange(height), torch.arange(width)
    summed = torch.zeros_like(flat)
    for dy, dx, weight in zip(down, right, weights.tolist()):
        y = border(rows + dy[:, None], height, "nearest")
        x = border(columns + dx[:, None], width, "nearest")
        places = (y[:, :, None] * width + x[:, None, :]).view(count, 1, -1).to(images.device)
        summed += flat.gather(2, places.expand(-1, channels, -1)).mul_(weight)
    return summed.view(images.shape)


def between(images: Tensor, y: Tensor, x: Tensor, mode: str) -> Tensor:
    """Return (B, C, H, W) images read at places between pixels, by bilinear interpolation.

    Each pixel is read from row y and column x, (B, H, W) each; `mode` is that of `border`.
    """
    height, width = images.shape[-2:]
    flat = images.flatten(2)
    top, left = y.floor(), x.floor()
    down, right = ((part - whole).flatten(1)[:, None] for part, whole in ((y, top), (x, left)))
    rows = [border(top.long() + i, height, mode) * width for i in (0, 1)]
    columns = [border(left.long() + i, width, mode) for i in (0, 1)]

    def at(i: int, j: int) -> Tensor:
        places = (rows[i] + columns[j]).flatten(1)[:, None]
        return flat.gather(2, places.expand(-1, images.shape[1], -1))

    upper = at(0, 0).mul_(1 - right).add_(at(0, 1).mul_(right))
    lower = at(1, 0).mul_(1 - right).add_(at(1, 1).mul_(right))
    return upper.mul_(1 - down).add_(lower.mul_(down)).view(images.shape)
