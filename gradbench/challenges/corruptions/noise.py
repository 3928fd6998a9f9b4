"""Noise on every value of a pixel by itself: Gaussian, shot, impulse and speckle."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.stats import poisson
from torch import Tensor

from gradbench.challenges.base import Clean
from gradbench.challenges.corruptions.base import Corruption
from gradbench.challenges.counter import image_keys, normal, random_bits, uniform


class GaussianNoise(Corruption):
    """Independent normal noise on every value; the strength is its standard deviation."""

    family = "gaussian_noise"
    bounds = (0, 1)

    def perturb(self, clean: Clean, strength: float, seed: int, network=None) -> Tensor:
        """Return grey levels with noise added, in float32: what its first version gave."""
        keys = image_keys(seed, self.family, clean.sources).to(clean.grey.device)
        return self.corrupt(clean.grey, keys, 255 * strength).clamp_(0, 255)

    def corrupt(self, images: Tensor, keys: Tensor, deviation: float) -> Tensor:
        """Return noisy images."""
        return gaussian_noise(images, keys, deviation)


class ShotNoise(Corruption):
    """Noise of counted photons; the strength is the number that a white pixel sends."""

    family = "shot_noise"
    bounds = (1, 10_000)

    def corrupt(self, images: Tensor, keys: Tensor, photons: float) -> Tensor:
        """Return noisy images."""
        return shot_noise(images, keys, photons)


class ImpulseNoise(Corruption):
    """Salt and pepper; the strength is the share of values that turn black or white."""

    family = "impulse_noise"
    bounds = (0, 1)

    def corrupt(self, images: Tensor, keys: Tensor, share: float) -> Tensor:
        """Return noisy images."""
        return impulse_noise(images, keys, share)


class SpeckleNoise(Corruption):
    """Normal noise in proportion to the value; the strength is its deviation as a share of it."""

    family = "speckle_noise"
    bounds = (0, 10)

    def corrupt(self, images: Tensor, keys: Tensor, share: float) -> Tensor:
        """Return noisy images."""
        return speckle_noise(images, keys, share)


def gaussian_noise(images: Tensor, keys: Tensor, deviation: float) -> Tensor:
    """Return x + deviation n with n standard normal, not clipped."""
    return images + deviation * normal(keys, images.shape[1:])


def shot_noise(images: Tensor, keys: Tensor, photons: float) -> Tensor:
    """Return n / photons with n drawn from Poisson(photons x), clipped.

    The 256 possible grey levels have a table of the distribution each, in which a uniform number
    of 24 bits is looked up: a device decides nothing but integers and comparisons.
    """
    edges, first = (t.to(images.device) for t in _poisson_tables(float(photons)))
    grey = images.mul(255).round_().long()
    drawn = uniform(keys, images.shape[1:]).to(edges.dtype).add_(grey)
    counts = torch.searchsorted(edges, drawn, right=True).sub_(first[grey])
    return (counts / torch.tensor(photons, device=edges.device, dtype=images.dtype)).clamp_(0, 1)


def impulse_noise(images: Tensor, keys: Tensor, share: float) -> Tensor:
    """Turn a share of all values into 0 or 1, each with probability one half."""
    bits = random_bits(keys, images[0].numel()).view(images.shape)
    hit = (bits & (2**32 - 1)) < round(share * 2**32)
    return torch.where(hit, (bits < 0).to(images.dtype), images)


def speckle_noise(images: Tensor, keys: Tensor, share: float) -> Tensor:
    """Return x + x share n with n standard normal, clipped."""
    noise = normal(keys, images.shape[1:]).to(images.dtype).mul_(share)
    return noise.mul_(images).add_(images).clamp_(0, 1)


@lru_cache(maxsize=16)
def _poisson_tables(photons: float) -> tuple[Tensor, Tensor]:
    """Return the distribution functions of all grey levels in one rising sequence.

    That of grey level g is moved up by g, so that g + u falls among its own steps; it is left out
    where a number of 24 bits cannot tell it from 0 or 1.

    Returns:
        The steps, and for each grey level the number to take off a place among them to have the
        count of photons.
    """
    edges, first, before = [], [], 0
    for grey in range(256):
        mean = photons * grey / 255
        low, high = (
            (int(n) for n in poisson.ppf([2.0**-26, 1 - 2.0**-26], mean)) if mean else (0, 0)
        )
        low = max(low, 0)
        steps = poisson.cdf(np.arange(low, high + 1), mean) + grey
        steps = steps[steps < grey + 1 - 2.0**-26]
        edges.append(steps)
        first.append(before - low)
        before += len(steps)
    return torch.from_numpy(np.concatenate(edges)), torch.tensor(first)
