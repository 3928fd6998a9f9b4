"""Less colour, less or more light, shadows and haze."""

from __future__ import annotations

import torch
from torch import Tensor

from gradbench.challenges.colour import luma
from gradbench.challenges.corruptions.plasma import covering, plasma
from gradbench.challenges.counter import uniform
from gradbench.challenges.cure_like.base import CureLike, scale

PERIOD = 14
"""Pixels from stripe to stripe."""
AIR = 0.8
"""Brightness of haze in the distance."""
THIN = 0.7
"""Share of the haze that is everywhere; the rest is a cloud."""


class Decolorization(CureLike):
    """Colours fade to grey; images of one channel stay as they are."""

    type = "decolorization"

    def change(self, images: Tensor, keys: Tensor, strength: float) -> Tensor:
        """Return images of less colour."""
        return decolorization(images, strength)


class Darkening(CureLike):
    """Less light on everything."""

    type = "darkening"

    def change(self, images: Tensor, keys: Tensor, strength: float) -> Tensor:
        """Return darker images."""
        return images * (1 - strength)


class Exposure(CureLike):
    """Too much light: what is brighter than white is lost."""

    type = "exposure"
    most = 20

    def change(self, images: Tensor, keys: Tensor, strength: float) -> Tensor:
        """Return brighter images."""
        return images * (1 + strength)


class Shadow(CureLike):
    """Stripes of shadow, as of a fence or of blinds, in a direction of their own."""

    type = "shadow"

    def change(self, images: Tensor, keys: Tensor, strength: float) -> Tensor:
        """Return images with darker stripes."""
        return images * (1 - strength * stripes(images, keys))


class Haze(CureLike):
    """A veil of bright grey, thicker where a cloud drifts."""

    type = "haze"

    def change(self, images: Tensor, keys: Tensor, strength: float) -> Tensor:
        """Return veiled images."""
        return haze(images, keys, strength)


def decolorization(images: Tensor, share: float) -> Tensor:
    """Move every pixel towards its luma."""
    return images + share * (luma(images) - images)


def stripes(images: Tensor, keys: Tensor) -> Tensor:
    """Return (B, 1, H, W) how deep in a shadow pixels are: 0 to 1, half of them 1 or nearly.

    The waves are made of straight lines, so that no function of a library decides a bit.
    """
    height, width = images.shape[-2:]
    drawn = uniform(keys, (2,)).to(images.dtype)[:, :, None, None]
    lean, phase = 1.2 * drawn[:, :1] - 0.6, drawn[:, 1:]
    down = torch.arange(height, dtype=images.dtype, device=images.device)[:, None]
    right = torch.arange(width, dtype=images.dtype, device=images.device)
    wave = ((right + lean * down) / (PERIOD * scale(images)) + phase).remainder(1)
    return (0.5 + 4 * ((wave - 0.5).abs() - 0.25)).clamp_(0, 1)


def haze(images: Tensor, keys: Tensor, weight: float) -> Tensor:
    """Mix images with bright grey, at its thickest with the given weight."""
    height, width = images.shape[-2:]
    cloud = plasma(keys, covering(height, width), 2.0)[:, None, :height, :width].to(images.dtype)
    veil = weight * (THIN + (1 - THIN) * cloud)
    return images * (1 - veil) + AIR * veil
