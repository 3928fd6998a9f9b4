"""RGB of shifted hue, saturation and value, in the form that the semantic attack has."""

from __future__ import annotations

import torch
from torch import Tensor


def hsv_to_rgb(hsv: Tensor) -> Tensor:
    """Return (..., 3, H, W) RGB in [0, 1] of hue, saturation and value.

    Equal to `challenges.colour.to_rgb` but for the last bit, which kept attacks hang on. Each
    channel is V - V S max(0, min(k, 4 - k, 1)), k = (n + 6 H) mod 6, n = 5, 3, 1.
    """
    hue, saturation, value = hsv.unbind(-3)
    shift = torch.tensor([5.0, 3.0, 1.0], dtype=hsv.dtype, device=hsv.device)[:, None, None]
    k = (shift + 6 * hue.unsqueeze(-3)).remainder(6)
    drop = torch.minimum(k, 4 - k).clamp(0, 1)
    return value.unsqueeze(-3) * (1 - saturation.unsqueeze(-3) * drop)
