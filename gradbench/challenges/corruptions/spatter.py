"""Drops of water or mud on the lens."""

from __future__ import annotations

import torch
from torch import Tensor

from gradbench.challenges.colour import tint
from gradbench.challenges.corruptions.base import Corruption
from gradbench.challenges.corruptions.edges import box_mean, canny, distances, equalised
from gradbench.challenges.corruptions.filters import correlate, gaussian
from gradbench.challenges.counter import normal

WATER = (175 / 255, 238 / 255, 238 / 255)
MUD = (63 / 255, 42 / 255, 20 / 255)
MUD_LEAST = 0.8
"""Below this, the blurred mask of mud counts as none."""
FARTHEST = 20
"""Pixels from an edge above which a distance is not told."""
RELIEF = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))
"""Light from the upper left on the distances."""


class Spatter(Corruption):
    """Water at the first levels, mud at the last: blobs of smoothed noise above a threshold.

    Differs from the paper: float64 where the reference has float32; an image on which no drop fell
    stays as it is, where the reference divides by zero.
    """

    family = "spatter"

    def corrupt(self, images: Tensor, keys: Tensor, *constants: float) -> Tensor:
        """Return images behind drops."""
        return spatter(images, keys, *constants)


def spatter(
    images: Tensor,
    keys: Tensor,
    mean: float,
    deviation: float,
    blur: float,
    threshold: float,
    strength: float,
    mud: float,
) -> Tensor:
    """Lay drops over images.

    Args:
        images: (B, C, H, W) in [0, 1]; those of one channel get the drops' luma.
        keys: (B,).
        mean: of the normal noise that becomes liquid.
        deviation: of it.
        blur: deviation of its smoothing in pixels.
        threshold: below which there is no liquid.
        strength: of water at its brightest; of mud, the deviation by which its mask is smoothed.
        mud: 1 for mud, 0 for water.
    """
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
    """Return (B, H, W) how bright the water is, 1 at its brightest: a relief lit from one side."""
    layer = liquid.mul(255).floor_().to(torch.int32)
    away = distances(canny(layer, 50, 150)).clamp_(max=FARTHEST).to(liquid.dtype)
    depth = equalised(box_mean(away).floor_().to(torch.int32), FARTHEST + 1)
    kernel = torch.tensor(RELIEF).numpy()
    lit = correlate(depth.to(liquid.dtype), kernel).clamp_(0, 255)
    bright = box_mean(lit).round_() * layer
    most = bright.amax((1, 2), keepdim=True)
    return bright / torch.where(most == 0, torch.ones_like(most), most)
