"""What the twelve stand-ins share: table, levels, random numbers, and the mark in every row."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from gradbench.challenges.base import CleanBatch, Derived
from gradbench.challenges.corruptions.base import unit
from gradbench.challenges.counter import image_keys
from gradbench.challenges.cure_like.table import SIDE, TABLE
from gradbench.errors import GradbenchError


class CureLike(Derived):
    """A challenge type of CURE-TSR at five levels, generated from any images.

    changed = function(images, keys, strength), with images (B, C, H, W) in [0, 1] and keys (B,);
    functions go to the identity as the strength goes to 0. Every row is marked `stand_in`.

    Differs from the paper: Temel et al. (2017) do not publish how their challenges were made, so
    functions and strengths are gradbench's own; see `table`. Pixels are rounded towards the clean
    image.

    Attributes:
        type: name of the challenge type, a key of TABLE.
        most: largest strength that makes sense.

    Args:
        strengths: of the levels, in place of the table's.

    Raises:
        GradbenchError: if there is none, or one is not between 0 and `most`.
    """

    kind = "corruption"
    status = "stand_in"
    note = "generated like CURE-TSR, parameters of gradbench"
    type: ClassVar[str]
    most: ClassVar[float] = 1

    def __init__(self, strengths: Sequence[float] | None = None):
        given = TABLE[self.type] if strengths is None else strengths
        self.strengths = tuple(given) if isinstance(given, Sequence) else (given,)
        right = [
            isinstance(s, int | float) and not isinstance(s, bool) and 0 <= s <= self.most
            for s in self.strengths
        ]
        if not right or not all(right):
            raise GradbenchError(
                f"{self.family} strengths={list(self.strengths)}: list one or more values from 0 "
                f"to {self.most:g}"
            )

    @property
    def family(self) -> str:
        """Name under which random numbers are drawn."""
        return f"cure_like_{self.type}"

    def perturb(self, clean: CleanBatch, strength: float, seed: int, network=None) -> Tensor:
        """Return grey levels in [0, 255]."""
        if strength == 0:
            return clean.grey.clone()
        keys = image_keys(seed, self.family, clean.sources).to(clean.grey.device)
        return self.change(unit(clean.grey), keys, strength).mul_(255).clamp_(0, 255)

    @abstractmethod
    def change(self, images: Tensor, keys: Tensor, strength: float) -> Tensor:
        """Return the changed images, in [0, 1] or beyond it."""


def scale(images: Tensor) -> float:
    """Return by how much the shorter side of (B, C, H, W) images exceeds 32 pixels."""
    return min(images.shape[-2:]) / SIDE
