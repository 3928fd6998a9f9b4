"""Edges, distances from them and histograms, as OpenCV defines them, for batches of planes.

Known answers of OpenCV itself are kept in the tests.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gradbench.challenges.corruptions.filters import border, correlate

_TAN = 13573
"""Tangent of 22.5 degrees times 2**15, the rounded number that OpenCV computes with."""
_STEPS = {(0, 1): 65536, (1, 1): 91750, (1, 2): 143976}
"""Lengths 1, 1.4 and 2.1969 of the moves of a 5 x 5 mask, times 2**16 (Borgefors 1986)."""
_UNIT = 2.0**-16
_FAR = 2**30


def canny(planes: Tensor, low: int, high: int) -> Tensor:
    """Return (B, H, W) bool, True on edges (Canny 1986).

    Sobel slopes of 3 x 3 with repeated borders, |dx| + |dy| as size, thinned across the edge, kept
    where above `high`, or above `low` and joined to such a pixel.

    Args:
        planes: (B, H, W) int32 grey levels.
        low: lower threshold.
        high: upper threshold.
    """
    grey = _shifted(planes, "nearest")
    dx = (grey(-1, 1) - grey(-1, -1)) + 2 * (grey(0, 1) - grey(0, -1)) + grey(1, 1) - grey(1, -1)
    dy = (grey(1, -1) - grey(-1, -1)) + 2 * (grey(1, 0) - grey(-1, 0)) + grey(1, 1) - grey(-1, 1)
    size = dx.abs() + dy.abs()
    near = _shifted(size, None)
    x, y = dx.abs().long(), dy.abs().long() << 15
    flat, steep = y < x * _TAN, y > x * _TAN + (x << 16)
    falling = (dx ^ dy) < 0
    along_x = (size > near(0, -1)) & (size >= near(0, 1))
    along_y = (size > near(-1, 0)) & (size >= near(1, 0))
    down = (size > near(-1, -1)) & (size > near(1, 1))
    up = (size > near(-1, 1)) & (size > near(1, -1))
    diagonal = torch.where(falling, up, down)
    thin = torch.where(flat, along_x, torch.where(steep, along_y, diagonal)) & (size > low)
    edges = thin & (size > high)
    while True:  # weak pixels join the edges beside them
        near = _shifted(edges, None)
        joined = edges.clone()
        for i in (-1, 0, 1):
            for j in (-1, 0, 1):
                joined |= near(i, j)
        joined &= thin
        if torch.equal(joined, edges):
            return edges
        edges = joined


def distances(edges: Tensor) -> Tensor:
    """Return (B, H, W) float32 distances to the nearest edge in pixels.

    Lengths of the shortest path in steps of a 5 x 5 mask; very large where there is no edge.
    """
    found = torch.where(edges, 0, _FAR).to(torch.int32)
    moves = {
        (sign * (b if turn else a), other * (a if turn else b)): length
        for (a, b), length in _STEPS.items()
        for turn in (False, True)
        for sign in (1, -1)
        for other in (1, -1)
    }
    while True:  # each round reaches two pixels farther
        near = _shifted(found, _FAR)
        better = found
        for move, length in moves.items():
            better = torch.minimum(better, near(*move) + length)
        if torch.equal(better, found):
            return found.to(torch.float32) * _UNIT
        found = better


def box_mean(planes: Tensor) -> Tensor:
    """Return (B, H, W) means over 3 x 3 pixels, the border mirrored."""
    ones = torch.ones(3, 3).numpy()
    divisor = torch.tensor(9.0, dtype=planes.dtype, device=planes.device)
    return correlate(planes, ones) / divisor


def equalised(planes: Tensor, levels: int) -> Tensor:
    """Return (B, H, W) int32 in 0..255 with an even histogram; constant planes as they are.

    Args:
        planes: (B, H, W) int32.
        levels: all values are below this.
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


def _shifted(planes: Tensor, outside: int | str | None) -> Callable[[int, int], Tensor]:
    """Return a function of (down, right) that gives the pixels so far away, 0 or `outside` there.

    Args:
        planes: (B, H, W).
        outside: value beyond the border, `nearest` to repeat it, None for 0 or False.
    """
    height, width = planes.shape[-2:]
    if outside == "nearest":
        rows, columns = (border(torch.arange(-2, n + 2), n, "nearest") for n in (height, width))
        padded = planes.index_select(-2, rows.to(planes.device))
        padded = padded.index_select(-1, columns.to(planes.device))
    else:
        shape = (len(planes), height + 4, width + 4)
        fill = 0 if outside is None else outside
        padded = torch.full(shape, fill, dtype=planes.dtype, device=planes.device)
        padded[:, 2:-2, 2:-2] = planes
    return lambda down, right: padded[
        :, 2 + down : 2 + down + height, 2 + right : 2 + right + width
    ]
