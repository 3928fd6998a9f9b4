"""Rain and snow."""

from __future__ import annotations

from scipy.stats import norm
from torch import Tensor

from gradbench.challenges.corruptions.sampling import trail
from gradbench.challenges.corruptions.weather import snow
from gradbench.challenges.counter import uniform
from gradbench.challenges.cure_like.base import CureLike, scale

LENGTH = 5
"""Pixels of a streak of rain, half of them counted."""
LEAN = 15
"""Degrees by which rain leans to either side at most."""
BRIGHT = 0.7
"""Brightness that a drop adds to black."""
WET = 2.0
"""Weight of the grey veil that comes with rain, for each share of pixels that streaks begin at."""
FLAKES = {"deviation": 0.3, "zoom": 1.6, "threshold": 0.6}
"""Of snow: deviation of its noise, enlargement, least value of a flake."""
WHITE = 1.5
"""How much images whiten in snow, for each share of pixels that are flakes."""


class Rain(CureLike):
    """Bright streaks that fall nearly straight, and a little grey."""

    type = "rain"

    def change(self, images: Tensor, keys: Tensor, strength: float) -> Tensor:
        """Return images in rain."""
        return rain(images, keys, strength)


class CureSnow(CureLike):
    """Flakes that fall aslant over an image that whitens, as in CIFAR-10-C."""

    type = "snow"
    most = 0.5

    def change(self, images: Tensor, keys: Tensor, strength: float) -> Tensor:
        """Return images in snow."""
        # flakes are what of normal noise exceeds a threshold: the mean that gives their share
        mean = FLAKES["threshold"] - FLAKES["deviation"] * float(norm.isf(strength))
        radius = max(round(4 * scale(images)), 1)
        own = 1 - WHITE * strength
        return snow(images, keys, mean, **FLAKES, radius=radius, spread=0.8 * radius, own=own)


def rain(images: Tensor, keys: Tensor, share: float) -> Tensor:
    """Lay streaks over images; with the share, more begin and none goes."""
    begins = (uniform(keys, images.shape[-2:]) < share).to(images.dtype)[:, None]
    angles = 90 - LEAN + 2 * LEAN * uniform(keys, (1,), stream=1)[:, 0].double()
    half = max(round(LENGTH * scale(images)), 1)
    streaks = trail(begins, angles, half, 0.7 * half).mul_(half).clamp_(0, 1)
    light = BRIGHT * streaks
    veil = min(WET * share, 1)
    grey = images * (1 - veil) + 0.55 * veil
    return grey + light * (1 - grey)
