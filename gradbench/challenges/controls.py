"""Challenges that are controls: the clean images, and noisy copies that count as normal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradbench.challenges.base import CleanBatch, Derived
from gradbench.challenges.counter import image_keys, normal


class Identity(Derived):
    """The clean images, treated as a challenge: all scores must be at chance."""

    kind = "control"
    family = "identity"
    strengths = (0.0,)

    def perturb(self, clean: CleanBatch, strength: float, seed: int, network=None) -> Tensor:
        """Return the grey levels as they are."""
        return clean.grey.clone()


class NoisyCopy(Derived):
    """x + s std N(0, 1), noise of deviation s in the normalised space of f (Lee et al. 2018).

    `std` is the deviation by which f divides each channel, pixels in [0, 1]. The old protocol of
    attacks counts these copies as normal. Rounded to the nearest grey levels.
    """

    kind = "control"
    family = "noisy_negatives"

    def __init__(self, noise: float, std: Sequence[float]):
        self.strengths, self.std = (noise,), tuple(std)

    def settings(self) -> Mapping[str, Any]:
        """Return the deviations of the channels."""
        return {"std": self.std}

    def perturb(self, clean: CleanBatch, strength: float, seed: int, network=None) -> Tensor:
        """Return grey levels with noise added and cut to [0, 255]."""
        keys = image_keys(seed, self.family, clean.sources).to(clean.grey.device)
        scale = 255 * strength * torch.tensor(self.std, device=clean.grey.device)[:, None, None]
        noisy = (clean.grey + scale * normal(keys, clean.grey.shape[1:])).clamp_(0, 255)
        return noisy.round_() if clean.quantise else noisy
