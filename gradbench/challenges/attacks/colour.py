"""Hue, saturation and value of pixels (Smith 1978)."""

from __future__ import annotations

import torch
from torch import Tensor


def rgb_to_hsv(rgb: Tensor) -> Tensor:
    """Return (..., 3, H, W) hue in [0, 1), saturation and value in [0, 1] of RGB in [0, 1].

    Grey pixels have hue and saturation 0.
    """
    red, green, blue = rgb.unbind(-3)
    value, least = rgb.amax(-3), rgb.amin(-3)
    spread = value - least
    safe = spread.where(spread > 0, torch.ones_like(spread))
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    saturation = spread / value.where(value > 0, torch.ones_like(value))
    hue = (hue / 6).where(spread > 0, torch.zeros_like(hue)).remainder(1)
    return torch.stack([hue, saturation, value], -3)


def hsv_to_rgb(hsv: Tensor) -> Tensor:
    """Return (..., 3, H, W) RGB in [0, 1] of hue, saturation and value.

    Each channel is V - V S max(0, min(k, 4 - k, 1)), k = (n + 6 H) mod 6, n = 5, 3, 1.
    """
    hue, saturation, value = hsv.unbind(-3)
    shift = torch.tensor([5.0, 3.0, 1.0], dtype=hsv.dtype, device=hsv.device)[:, None, None]
    k = (shift + 6 * hue.unsqueeze(-3)).remainder(6)
    drop = torch.minimum(k, 4 - k).clamp(0, 1)
    return value.unsqueeze(-3) * (1 - saturation.unsqueeze(-3) * drop)
