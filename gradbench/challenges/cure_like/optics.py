"""What the lens does: out of focus, blurred, dirty."""

from __future__ import annotations

from scipy.stats import norm
from torch import Tensor

from gradbench.challenges.colour import tint
from gradbench.challenges.corruptions.blur import defocus_blur, gaussian_blur
from gradbench.challenges.corruptions.filters import gaussian, gaussian_weights
from gradbench.challenges.counter import normal
from gradbench.challenges.cure_like.base import CureLike, scale

RIM = 0.5
"""Deviation in pixels that softens the rim of the disk."""
SPOT = 1.8
"""Deviation in pixels of the smoothing that gives spots of dirt their size."""
EDGE = 0.8
"""Width of their edge, in deviations of the smoothed noise."""
OPACITY = 0.85
DIRT = (0.42, 0.38, 0.31)


class LensBlur(CureLike):
    """A lens out of focus: every point becomes a disk, of a radius of whole and half pixels."""

    type = "lens_blur"
    most = 16

    def change(self, images: Tensor, keys: Tensor, strength: float) -> Tensor:
        """Return blurred images."""
        radius = strength * scale(images)
        return defocus_blur(images, keys, radius, min(RIM, radius / 2))


class CureGaussianBlur(CureLike):
    """Gaussian blur."""

    type = "gaussian_blur"
    most = 16

    def change(self, images: Tensor, keys: Tensor, strength: float) -> Tensor:
        """Return blurred images."""
        return gaussian_blur(images, keys, strength * scale(images))


class DirtyLens(CureLike):
    """Spots of dry dirt on the lens, through which little is seen."""

    type = "dirty_lens"

    def change(self, images: Tensor, keys: Tensor, strength: float) -> Tensor:
        """Return images behind dirt."""
        mask = OPACITY * dirt(images, keys, strength)
        return images * (1 - mask) + tint(DIRT, images) * mask


def dirt(images: Tensor, keys: Tensor, share: float) -> Tensor:
    """Return (B, 1, H, W) how much of each pixel is dirt: smoothed noise above a threshold.

    With the share, spots grow and join; none goes.
    """
    size = SPOT * scale(images)
    noise = gaussian(normal(keys, images.shape[-2:]).to(images.dtype), size)
    noise /= sum(w * w for w in gaussian_weights(float(size)))  # of deviation 1 again
    least = float(norm.isf(share))
    return ((noise - least) / EDGE + 0.5).clamp_(0, 1)[:, None]
