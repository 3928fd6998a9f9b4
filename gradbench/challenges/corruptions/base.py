"""The bases of all corruptions: levels of a table, random numbers by image, pixels in [0, 1]."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from gradbench.challenges.base import CleanBatch, Derived
from gradbench.challenges.corruptions.tables import CURE_LIKE, TABLES, Strength
from gradbench.challenges.counter import image_keys
from gradbench.errors import GradbenchError, unknown


class Corruption(Derived):
    """A change of any images, by a pure function `corrupt` of images, keys and constants."""

    kind = "corruption"
    bounds: ClassVar[tuple[float, float] | None] = None
    """Least and largest strength that a user may give; None where a level has several constants."""

    @abstractmethod
    def corrupt(self, images: Tensor, keys: Tensor, *constants: float) -> Tensor:
        """Return corrupted images (B, C, H, W) off the grid; values beyond [0, 1] are cut later.

        Computed in float64 in the order of the reference script, since whole numbers of grey levels
        are cut off there, not rounded, and then the last bit counts; in float32 on devices without
        it.

        Args:
            images: (B, C, H, W) in [0, 1], C 1 or 3, on the 1/255 grid.
            keys: (B,) of `image_keys`, from which random numbers are drawn.
            constants: of a level.
        """

    def perturb(self, clean: CleanBatch, strength: Strength, seed: int, network=None) -> Tensor:
        """Return grey levels in [0, 255] before they are cut to whole numbers."""
        if strength == 0:
            return clean.grey.clone()
        keys = image_keys(seed, self.family, clean.sources).to(clean.grey.device)
        constants = strength if isinstance(strength, tuple) else (strength,)
        return self.corrupt(to_unit(clean.grey), keys, *constants).mul_(255).clamp_(0, 255)

    def _checked_strengths(self, strengths: Sequence[float]) -> tuple[float, ...]:
        if self.bounds is None:
            raise GradbenchError(
                f"{self.family} takes no strengths, since its levels have several constants each: "
                f"choose a table, {' or '.join(TABLES)}"
            )
        low, high = self.bounds
        numbers = [s for s in strengths if isinstance(s, int | float) and not isinstance(s, bool)]
        if (
            not numbers
            or len(numbers) < len(strengths)
            or not all(low <= number <= high for number in numbers)
        ):
            raise GradbenchError(
                f"{self.family} strengths={[*strengths]}: list one or more values from {low:g} to "
                f"{high:g}"
            )
        return tuple(numbers)


class CommonCorruption(Corruption):
    """A family of CIFAR-10-C at five levels (Hendrycks and Dietterich 2019).

    Differs from the paper: random numbers come from a counter-based generator keyed by seed,
    family and image. The images of a random family are therefore not those of the archive; an
    image has the same random numbers at every level.

    Args:
        strengths: of the levels in place of the table's, where that is one number a level.
        table: of the constants, `cifar` or `imagenet`.
    """

    truncates = True

    def __init__(self, strengths: Sequence[float] | None = None, table: str = "cifar"):
        if table not in TABLES:
            raise unknown("table of constants", str(table), TABLES)
        self.table, self.own_strengths = table, strengths is not None
        self.strengths: tuple[Strength, ...] = TABLES[table][self.family]
        if strengths is not None:
            self.strengths = self._checked_strengths(strengths)

    @property
    def note(self) -> str:
        """The constants that were used."""
        return "constants: own" if self.own_strengths else f"constants: {self.table}"


class CureLike(Corruption):
    """A challenge type of CURE-TSR at five levels, generated from any images: a stand-in.

    `corrupt` goes to the identity as the strength goes to 0. Every row is marked `stand_in`.

    Differs from the paper: Temel et al. (2017) do not publish how their challenges were made, so
    functions and strengths are gradbench's own; see `tables.CURE_LIKE`. Pixels are rounded towards
    the clean image.
    """

    status = "stand_in"
    note = "generated like CURE-TSR, parameters of gradbench"
    bounds = (0, 1)
    type: ClassVar[str]
    """A key of `CURE_LIKE`."""

    def __init__(self, strengths: Sequence[float] | None = None):
        self.strengths = self._checked_strengths(
            CURE_LIKE[self.type] if strengths is None else strengths
        )

    @property
    def family(self) -> str:
        """Name under which random numbers are drawn."""
        return f"cure_like_{self.type}"


def to_unit(grey: Tensor) -> Tensor:
    """Return grey levels 0..255 as float64 in [0, 1], float32 on a device without float64."""
    return over_255(grey.to(torch.float32 if grey.device.type == "mps" else torch.float64))


def over_255(grey: Tensor) -> Tensor:
    """Return grey levels divided by 255.

    The divisor is a tensor: some devices multiply by the inverse of a number instead, which
    differs in the last bit.
    """
    return grey / torch.tensor(255.0, device=grey.device, dtype=grey.dtype)
