"""Noise on every value of a pixel by itself: Gaussian, shot, impulse and speckle."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.stats import poisson
from torch import Tensor

from gradbench.challenges.base import CleanBatch
from gradbench.challenges.corruptions.base import CommonCorruption
from gradbench.challenges.counter import image_keys, normal, random_bits

_GUIDED = 14
"""Binary places of the runs of random numbers that share a place to begin the search at."""


class GaussianNoise(CommonCorruption):
    """Independent normal noise on every value; the strength is its standard deviation."""

    family = "gaussian_noise"
    bounds = (0, 1)

    def perturb(self, clean: CleanBatch, strength: float, seed: int, network=None) -> Tensor:
        """Return grey levels with noise added, in float32: the bits of its first version."""
        keys = image_keys(seed, self.family, clean.sources).to(clean.grey.device)
        return self.corrupt(clean.grey, keys, 255 * strength).clamp_(0, 255)

    def corrupt(self, images: Tensor, keys: Tensor, deviation: float) -> Tensor:
        """Return x + deviation n with n standard normal."""
        return images + deviation * normal(keys, images.shape[1:])


class ShotNoise(CommonCorruption):
    """Noise of counted photons; the strength is the number that a white pixel sends."""

    family = "shot_noise"
    bounds = (1, 10_000)

    def corrupt(self, images: Tensor, keys: Tensor, photons: float) -> Tensor:
        """Return n / photons with n drawn from Poisson(photons x).

        The 256 possible grey levels have a table of the distribution each, in which a random number
        of 24 bits is looked up: a device decides nothing but whole numbers.
        """
        edges, guide, first = (t.to(images.device) for t in _poisson_tables(float(photons)))
        grey = images.mul(255).round_().long().flatten()
        bits = random_bits(keys, images[0].numel()).view(-1)
        drawn = (grey << 24) + ((bits >> 40) & 0xFFFFFF)
        place = guide.take(drawn >> _GUIDED)
        # from the guide's place on, step by step, those that have not arrived
        left = (edges.take(place) <= drawn).nonzero()[:, 0]
        while len(left):
            place[left] += 1
            left = left[edges.take(place[left]) <= drawn[left]]
        counts = place.sub_(first.take(grey)).view(images.shape)
        divisor = torch.tensor(photons, device=images.device, dtype=images.dtype)
        return (counts / divisor).clamp_(0, 1)


class ImpulseNoise(CommonCorruption):
    """Salt and pepper; the strength is the share of values that turn black or white."""

    family = "impulse_noise"
    bounds = (0, 1)

    def corrupt(self, images: Tensor, keys: Tensor, share: float) -> Tensor:
        """Turn a share of all values into 0 or 1, each with probability one half."""
        bits = random_bits(keys, images[0].numel()).view(images.shape)
        hit = (bits & (2**32 - 1)) < round(share * 2**32)
        return torch.where(hit, (bits < 0).to(images.dtype), images)


class SpeckleNoise(CommonCorruption):
    """Normal noise in proportion to the value; the strength is its deviation as a share of it."""

    family = "speckle_noise"
    bounds = (0, 10)

    def corrupt(self, images: Tensor, keys: Tensor, share: float) -> Tensor:
        """Return x + x share n with n standard normal."""
        noise = normal(keys, images.shape[1:]).to(images.dtype).mul_(share)
        return noise.mul_(images).add_(images).clamp_(0, 1)


@lru_cache(maxsize=16)
def _poisson_tables(photons: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the distribution functions of all grey levels in one rising sequence of integers.

    Those of grey level g are its steps times 2**24, moved up by g times 2**24, so that a random
    number moved up likewise falls among them; steps that 24 bits cannot tell from 0 or 1 are left
    out. With them come, for every run of 2**14 numbers, the place among the steps at its beginning,
    and for each grey level the number to take off a place for the count of photons.
    """
    edges, first, before = [], [], 0
    for grey in range(256):
        mean = photons * grey / 255
        low, high = (max(int(n), 0) for n in poisson.ppf([2.0**-26, 1 - 2.0**-26], mean))
        steps = np.ceil(poisson.cdf(np.arange(low, high + 1), mean) * 2**24 - 0.5).astype(np.int64)
        steps = steps[steps < 2**24]
        edges.append(steps + (grey << 24))
        first.append(before - low)
        before += len(steps)
    rising = torch.from_numpy(np.concatenate(edges))
    begins = torch.arange(256 << (24 - _GUIDED)) << _GUIDED
    guide = torch.searchsorted(rising, begins, right=True)
    end = torch.tensor([2**62])
    return torch.cat([rising, end]), guide, torch.tensor(first)
