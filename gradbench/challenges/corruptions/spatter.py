"""Drops of water or mud on the lens, by edges, distances and histograms as OpenCV defines them.

Known answers of OpenCV itself are kept in the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import pad

from gradbench.challenges.colour import tint
from gradbench.challenges.corruptions.base import CommonCorruption
from gradbench.challenges.corruptions.filters import correlate, extended, gaussian
from gradbench.challenges.counter import normal

WATER = (175 / 255, 238 / 255, 238 / 255)
MUD = (63 / 255, 42 / 255, 20 / 255)
MUD_LEAST = 0.8
"""Below this, the blurred mask of mud counts as none."""
FARTHEST = 20
"""Pixels; distances from an edge are cut there."""
RELIEF = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))
"""Light from the upper left on the distances."""
_TAN = 13573
"""Tangent of 22.5 degrees times 2**15, the rounded number that OpenCV computes with."""
_STEPS = {(0, 1): 65536, (1, 0): 65536, (1, 1): 91750, (1, 2): 143976, (2, 1): 143976}
"""Lengths 1, 1.4 and 2.1969 of the moves of a 5 x 5 mask, times 2**16 (Borgefors 1986)."""
_FAR = 2**30


class Spatter(CommonCorruption):
    """Water at the first levels, mud at the last: blobs of smoothed noise above a threshold.

    Differs from the paper: float64 where the reference has float32; an image on which no drop fell
    stays as it is, where the reference divides by zero.
    """

    family = "spatter"

    def corrupt(
        self,
        images: Tensor,
        keys: Tensor,
        mean: float,
        deviation: float,
        blur: float,
        threshold: float,
        strength: float,
        mud: float,
    ) -> Tensor:
        """Lay drops, or their luma, over images; the constants are in the order of the table."""
        noise = normal(keys, images.shape[-2:]).to(images.dtype) * deviation + mean
        liquid = gaussian(noise, blur)
        liquid = liquid.masked_fill(liquid < threshold, 0)
        if mud:
            mask = gaussian((liquid > threshold).to(images.dtype), strength)
            mask = mask.masked_fill(mask < MUD_LEAST, 0)[:, None]
            return (images * (1 - mask) + tint(MUD, images) * mask).clamp_(0, 1)
        mask = strength * _water(liquid)[:, None]
        return (images + mask * tint(WATER, images)).clamp_(0, 1)


def _water(liquid: Tensor) -> Tensor:
    """Return (B, H, W) brightness of the water, 1 at its most: a relief lit from one side."""
    layer = liquid.mul(255).floor_().to(torch.int32)
    away = distances(canny(layer, 50, 150)).clamp_(max=FARTHEST).to(liquid.dtype)
    depth = equalised(box_mean(away).floor_().to(torch.int32), FARTHEST + 1)
    lit = correlate(depth.to(liquid.dtype), np.array(RELIEF)).clamp_(0, 255)
    bright = box_mean(lit).round_() * layer
    most = bright.amax((1, 2), keepdim=True)
    return bright / torch.where(most == 0, torch.ones_like(most), most)


def canny(planes: Tensor, low: int, high: int) -> Tensor:
    """Return (B, H, W) bool, True on edges (Canny 1986).

    Sobel slopes of 3 x 3 with repeated borders, |dx| + |dy| as size, thinned across the edge, kept
    where above `high`, or above `low` and joined to such a pixel. Planes are int32 grey levels.
    """
    grey = _neighbours(extended(extended(planes, 1, -2), 1, -1), 1)
    dx = (grey(-1, 1) - grey(-1, -1)) + 2 * (grey(0, 1) - grey(0, -1)) + grey(1, 1) - grey(1, -1)
    dy = (grey(1, -1) - grey(-1, -1)) + 2 * (grey(1, 0) - grey(-1, 0)) + grey(1, 1) - grey(-1, 1)
    size = dx.abs() + dy.abs()
    near = _neighbours(pad(size, (1, 1, 1, 1)), 1)
    x, y = dx.abs().long(), dy.abs().long() << 15
    flat, steep = y < x * _TAN, y > x * _TAN + (x << 16)
    falling = (dx ^ dy) < 0
    along_x = (size > near(0, -1)) & (size >= near(0, 1))
    along_y = (size > near(-1, 0)) & (size >= near(1, 0))
    down = (size > near(-1, -1)) & (size > near(1, 1))
    up = (size > near(-1, 1)) & (size > near(1, -1))
    diagonal = torch.where(falling, up, down)
    thin = torch.where(flat, along_x, torch.where(steep, along_y, diagonal)) & (size > low)
    # weak pixels join the strong edges beside them, plane by plane
    strong, weak = (mask.cpu().numpy() for mask in (thin & (size > high), thin))
    edges = ndimage.binary_propagation(strong, np.ones((1, 3, 3)), mask=weak)
    return torch.from_numpy(edges).to(planes.device)


def distances(edges: Tensor) -> Tensor:
    """Return (B, H, W) float32 distances to the nearest edge in pixels.

    Lengths of the shortest path in steps of a 5 x 5 mask; very large where there is no edge.
    """
    nearest = torch.where(edges, 0, _FAR).to(torch.int32)
    moves = [(y, x) for y, x in product(range(-2, 3), repeat=2) if (abs(y), abs(x)) in _STEPS]
    while True:  # each round reaches two pixels farther
        near, better = _neighbours(pad(nearest, (2, 2, 2, 2), value=_FAR), 2), nearest
        for y, x in moves:
            better = torch.minimum(better, near(y, x) + _STEPS[abs(y), abs(x)])
        if torch.equal(better, nearest):
            return nearest.to(torch.float32) * 2.0**-16
        nearest = better


def box_mean(planes: Tensor) -> Tensor:
    """Return (B, H, W) means over 3 x 3 pixels, the border mirrored."""
    divisor = torch.tensor(9.0, dtype=planes.dtype, device=planes.device)
    return correlate(planes, np.ones((3, 3))) / divisor


def equalised(planes: Tensor, levels: int) -> Tensor:
    """Return (B, H, W) int32 in 0..255 with an even histogram; constant planes as they are.

    The values of the int32 planes are below `levels`.
    """
    count = planes[0].numel()
    counts = torch.stack([(planes == v).sum((1, 2)) for v in range(levels)], 1)
    total = counts.cumsum(1)
    least = counts.gather(1, (counts > 0).int().argmax(1, keepdim=True))
    divisor = (count - least).clamp_(min=1)
    scale = (torch.tensor(255.0, device=planes.device) / divisor.float()).float()
    table = ((total - least).float() * scale).round_().clamp_(0, 255).to(torch.int32)
    even = table.gather(1, planes.flatten(1).long()).view(planes.shape)
    return torch.where((least == count)[:, :, None], planes, even)


def _neighbours(padded: Tensor, margin: int) -> Callable[[int, int], Tensor]:
    """Return a function of (down, right): the pixels so far away, of planes with a margin."""
    height, width = (side - 2 * margin for side in padded.shape[-2:])
    return lambda down, right: padded[
        :, margin + down : margin + down + height, margin + right : margin + right + width
    ]
