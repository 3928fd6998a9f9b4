"""What all corruptions share: their table of constants, levels, random numbers and pixels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from gradbench.challenges.base import CleanBatch, Derived
from gradbench.challenges.corruptions.constants import TABLES, Strength
from gradbench.challenges.counter import image_keys
from gradbench.errors import GradbenchError, unknown


class Corruption(Derived):
    """A family of CIFAR-10-C at five levels (Hendrycks and Dietterich 2019).

    Computed in float64 in the order of the reference script, since whole numbers of grey levels
    are cut off there, not rounded, and then the last bit counts; in float32 on devices without it.
    The mathematics is a pure function of each family's module,

        corrupted = family(images, keys, *constants)

    with images (B, C, H, W) in [0, 1], C 1 or 3, on the 1/255 grid; keys (B,) of `image_keys`;
    and the result likewise in [0, 1], off the grid.

    Differs from the paper: random numbers come from a counter-based generator keyed by seed,
    family and image. The images of a random family are therefore not those of the archive; an
    image has the same random numbers at every level.

    Attributes:
        table: `cifar` or `imagenet`.
        own: strengths were given in place of the table's.
        bounds: least and largest strength that a user may give, the least excluded unless 0
            changes nothing; None where a level has several constants.
        by_table: the result depends on the table beyond its constants.

    Args:
        strengths: of the levels in place of the table's, where that is one number a level.
        table: of the constants.

    Raises:
        GradbenchError: for an unknown table, or strengths that are refused.
    """

    kind = "corruption"
    truncates = True
    bounds: ClassVar[tuple[float, float] | None] = None
    by_table: ClassVar[bool] = False

    def __init__(self, strengths: Sequence[float] | None = None, table: str = "cifar"):
        if table not in TABLES:
            raise unknown("table of constants", str(table), TABLES)
        self.table, self.own = table, strengths is not None
        self.strengths: tuple[Strength, ...] = TABLES[table][self.family]
        if strengths is not None:
            self.strengths = self._checked(strengths)

    @property
    def note(self) -> str:
        """Which constants were used."""
        return "constants: own" if self.own else f"constants: {self.table}"

    def settings(self) -> Mapping[str, Any]:
        """Return the table where images depend on it beyond their strength."""
        return {"table": self.table} if self.by_table else {}

    def perturb(self, clean: CleanBatch, strength: Strength, seed: int, network=None) -> Tensor:
        """Return grey levels in [0, 255] before they are cut to whole numbers."""
        if strength == 0:
            return clean.grey.clone()
        keys = image_keys(seed, self.family, clean.sources).to(clean.grey.device)
        constants = strength if isinstance(strength, tuple) else (strength,)
        return self.corrupt(unit(clean.grey), keys, *constants).mul_(255).clamp_(0, 255)

    @abstractmethod
    def corrupt(self, images: Tensor, keys: Tensor, *constants: float) -> Tensor:
        """Return the corrupted images, both in [0, 1], for the constants of a level."""

    def _checked(self, strengths: Sequence[float]) -> tuple[float, ...]:
        if self.bounds is None:
            raise GradbenchError(
                f"{self.family} takes no strengths, since its levels have several constants each: "
                f"choose a table, {' or '.join(TABLES)}"
            )
        low, high = self.bounds
        given = list(strengths) if isinstance(strengths, Sequence) else strengths
        fits = bool(given) and isinstance(given, list)
        if not fits or not all(_is_number(s) and low <= s <= high for s in given):
            raise GradbenchError(
                f"{self.family} strengths={given}: list one or more values from {low:g} to {high:g}"
            )
        return tuple(given)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def unit(grey: Tensor) -> Tensor:
    """Return grey levels 0..255 as float64 in [0, 1], float32 on a device without float64.

    The divisor is a tensor: some devices multiply by the inverse of a number instead, which
    differs in the last bit.
    """
    images = grey.to(torch.float32 if grey.device.type == "mps" else torch.float64)
    return images / torch.tensor(255.0, device=images.device, dtype=images.dtype)
