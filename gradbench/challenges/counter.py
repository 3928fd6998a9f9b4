"""Random numbers as a function of (seed, family, image, position), in integer operations.

Numbers do not come from a stream that is used up, so an image gets the same ones in any batch, in
any order and on any device. The mixing function is the finaliser of SplitMix64 (Steele, Lea and
Flood 2014).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number
_FIRST = -4658895280553007687  # 0xBF58476D1CE4E5B9
_SECOND = -7723592293110705685  # 0x94D049BB133111EB


def image_keys(seed: int, family: str, sources: Iterable[str]) -> Tensor:
    """Return the (N,) int64 keys of images, from a seed, a family's name and the source ids."""
    return torch.tensor(
        [
            int.from_bytes(
                hashlib.blake2b(f"{seed}/{family}/{source}".encode(), digest_size=8).digest(),
                "little",
                signed=True,
            )
            for source in sources
        ],
        dtype=torch.int64,
    )


def random_bits(keys: Tensor, count: int, stream: int = 0) -> Tensor:
    """Return (N, count) int64, all 64 bits random, for (N,) keys; each stream is independent."""
    positions = torch.arange(count, device=keys.device, dtype=torch.int64)
    start = _mix(keys + torch.tensor(stream + 1, device=keys.device) * _GOLDEN)
    return _mix(_mix(start[:, None] + positions * _GOLDEN))


def uniform(keys: Tensor, shape: Sequence[int], stream: int = 0) -> Tensor:
    """Return (N, *shape) float32 in (0, 1), 24 bits each, never 0 or 1."""
    bits = _shift(random_bits(keys, math.prod(shape), stream), 40)
    return ((bits.to(torch.float32) + 0.5) * 2.0**-24).clamp_(max=1 - 2.0**-24).view(-1, *shape)


def normal(keys: Tensor, shape: Sequence[int], stream: int = 0) -> Tensor:
    """Return (N, *shape) float32 of the standard normal distribution (Box and Muller 1958)."""
    count = math.prod(shape)
    half = (count + 1) // 2
    first, second = uniform(keys, (2 * half,), stream).split(half, dim=1)
    radius = first.log().mul_(-2).sqrt_()
    angle = second.mul(2 * math.pi)
    both = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
    return both[:, :count].reshape(-1, *shape)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _FIRST
    x = (x ^ _shift(x, 27)) * _SECOND
    return x ^ _shift(x, 31)


def _shift(x: Tensor, places: int) -> Tensor:
    """Shift right and fill with zeros; the operator fills with the sign."""
    return (x >> places) & ((1 << (64 - places)) - 1)
