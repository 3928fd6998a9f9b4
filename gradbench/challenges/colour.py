"""Colour as hue, saturation and value, and as luma."""

from __future__ import annotations

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the brightness of a grey picture (ITU-R BT.601)."""


def luma(images: Tensor) -> Tensor:
    """Return (B, 1, H, W) brightness of (B, 3, H, W) images; those of one channel as they are."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    return red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]


def tint(colour: tuple[float, float, float], images: Tensor) -> Tensor:
    """Return a colour in [0, 1] as (1, C, 1, 1), its luma where images have one channel."""
    values = torch.tensor(colour, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    return values if images.shape[1] == 3 else luma(values)


def to_hsv(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return hue, saturation and value, each (B, H, W) in [0, 1], of (B, 3, H, W) images.

    Hue is 0 where there is no colour. Of equal channels the later one counts as the largest, and
    every step is taken in the order of scikit-image's `rgb2hsv`, to agree bit for bit.
    """
    red, green, blue = images.unbind(1)
    value = images.amax(1)
    spread = value - images.amin(1)
    grey = spread == 0
    divisor = torch.where(grey, torch.ones_like(spread), spread)
    hue = torch.where(green == value, (blue - red) / divisor + 2, (green - blue) / divisor)
    hue = torch.where(blue == value, (red - green) / divisor + 4, hue)
    hue = hue.div_(torch.tensor(6.0, dtype=hue.dtype, device=hue.device)).remainder_(1)
    black = value == 0
    saturation = spread / torch.where(black, torch.ones_like(value), value)
    return hue.masked_fill_(grey, 0), saturation.masked_fill_(grey, 0), value


def to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Return (B, 3, H, W) images of hue, saturation and value, each (B, H, W)."""
    turned = hue * 6
    sector = turned.floor()
    part = turned - sector
    low = value * (1 - saturation)
    falling = value * (1 - part * saturation)
    rising = value * (1 - (1 - part) * saturation)
    sector = sector.remainder_(6)
    # channel -> what it is in sectors 0 to 5
    orders = (
        (value, falling, low, low, rising, value),
        (rising, value, value, falling, low, low),
        (low, low, rising, value, value, falling),
    )
    planes = []
    for order in orders:
        plane = order[0]
        for number in range(1, 6):
            plane = torch.where(sector == number, order[number], plane)
        planes.append(plane)
    return torch.stack(planes, 1)
