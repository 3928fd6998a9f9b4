"""Gaussian noise at five levels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from gradbench.challenges.base import Clean, Derived
from gradbench.challenges.counter import image_keys, normal
from gradbench.errors import GradbenchError


class GaussianNoise(Derived):
    """Independent normal noise on every pixel and channel (Hendrycks and Dietterich 2019).

    Differs from the paper: random numbers come from a counter-based generator keyed by seed and
    image, so the images are not those of the published archive.

    Args:
        strengths: standard deviation of each level, for pixels in [0, 1].

    Raises:
        GradbenchError: if there is none, or one is not in [0, 1].
    """

    kind = "corruption"
    family = "gaussian_noise"
    truncates = True

    def __init__(self, strengths: Sequence[float]):
        self.strengths = tuple(strengths)
        if not self.strengths or not all(0 <= strength <= 1 for strength in self.strengths):
            raise GradbenchError(
                f"gaussian_noise strengths={list(strengths)}: list one or more values from 0 to 1"
            )

    def perturb(self, clean: Clean, strength: float, seed: int, network=None) -> Tensor:
        """Return grey levels with noise added and cut to [0, 255]."""
        keys = image_keys(seed, self.family, clean.sources).to(clean.grey.device)
        noise = normal(keys, clean.grey.shape[1:])
        return (clean.grey + 255 * strength * noise).clamp_(0, 255)
