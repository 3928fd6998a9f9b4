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


def to_hsv(images: Tensor) -> Tensor:
    """Return hue, saturation and value (B, 3, H, W) in [0, 1] of (B, 3, H, W) images.

    By matplotlib, on the processor: hue is 0 where there is no colour, and of equal channels the
    later one counts as the largest, bit for bit as in scikit-image, which the reference uses.
    """
    from matplotlib.colors import rgb_to_hsv

    hsv = rgb_to_hsv(images.permute(0, 2, 3, 1).cpu().numpy())
    return torch.from_numpy(hsv).permute(0, 3, 1, 2).to(images.device)


def to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Return (B, 3, H, W) images of hue, saturation and value, each (B, H, W)."""
    from matplotlib.colors import hsv_to_rgb

    rgb = hsv_to_rgb(torch.stack([hue, saturation, value], -1).cpu().numpy())
    return torch.from_numpy(rgb).permute(0, 3, 1, 2).to(hue.device)
