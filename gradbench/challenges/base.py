"""The bases of challenges: images of another set, or images made from the clean ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, final

import numpy as np
import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.imageset import ImageSet, to_grid
from gradbench.errors import GradbenchError


@dataclass(frozen=True)
class CleanBatch:
    """A batch of clean images that a challenge is made from."""

    grey: Tensor  # (B, C, H, W) float32, whole numbers from 0 to 255
    labels: Tensor  # (B,) int64
    sources: np.ndarray  # (B,) source ids, from which random numbers are drawn
    quantise: bool = True  # the challenge images will be rounded to the 1/255 grid

    @classmethod
    def from_pixels(
        cls, pixels: np.ndarray, labels: np.ndarray, sources: np.ndarray, device, quantise=True
    ) -> CleanBatch:
        """Return uint8 pixels (B, C, H, W) with their labels and sources on a device."""
        grey = torch.from_numpy(pixels).to(device).float()
        return cls(grey, torch.from_numpy(labels).to(device), sources, quantise)

    def rounded(self, grey: Tensor) -> Tensor:
        """Return grey levels on the grid where that is wanted.

        They are rounded towards the clean image, so that no budget of an attack is exceeded.
        """
        return self.grey + (grey - self.grey).trunc() if self.quantise else grey


class Challenge(ABC):
    """Base of all challenges."""

    kind: ClassVar[str]
    """`ood`, `corruption` or `adversarial`: the column `challenge_set` of its rows."""

    @property
    def title(self) -> str:
        """The name of the challenge in messages."""
        return type(self).__name__

    @property
    def levels(self) -> tuple[int, ...]:
        """The levels, empty for a challenge without levels."""
        return ()

    def check_level(self, level: int | None) -> None:
        """Raise a GradbenchError for a level that does not exist."""
        if level not in (self.levels or (None,)):
            raise GradbenchError(
                f"{self.title} has no level {level}: choose from "
                f"{', '.join(map(str, self.levels)) or 'no level at all'}"
            )

    def check_dataset(self, dataset: Dataset) -> None:  # noqa: B027 - most take any
        """Raise a GradbenchError for in-distribution images that the challenge is not made for."""


@dataclass(frozen=True)
class ImageRequest:
    """The images that are wanted of an external challenge."""

    name: str  # of the challenge in rows
    level: int | None  # None for a challenge without levels
    clean: ImageSet  # the normal side of the measurement, whose shape is wanted
    dataset: Dataset  # the in-distribution set
    data: DataSettings  # where images are looked for
    seed: int


class External(Challenge):
    """A challenge whose images are read or drawn, not made from the clean ones."""

    @abstractmethod
    def find(self, request: ImageRequest) -> ImageSet:
        """Return the images at the in-distribution shape; raise MissingData without them."""


class Derived(Challenge):
    """A challenge made from clean images, at one strength or at levels 1 to 5."""

    family: ClassVar[str]
    """Name under which random numbers are drawn."""
    version: ClassVar[int] = 1
    """Raised when the images change, so that kept products are not mistaken for them."""
    uses_network: ClassVar[bool] = False
    """The images depend on f (attacks). They are stored, since another device would not give the
    same bits."""
    truncates: ClassVar[bool] = False
    """Grey levels are cut to whole numbers, as the reference corruptions do; otherwise they are
    rounded towards the clean image, which keeps attacks within their budget."""
    status: ClassVar[str] = "generated"
    """Of the images in rows; `stand_in` where they stand for those of a published set."""
    note = ""
    """A remark on the images for the rows."""
    strengths: Sequence[float | tuple[float, ...]]
    """One for each level, or a single one for a challenge without levels: a number, or a tuple of
    constants. 0 must give back the clean images bit for bit."""

    def with_data(self, root: Path) -> Self:
        """Return the challenge with the files that it takes from the data root, if any."""
        return self

    @property
    def title(self) -> str:
        """The family."""
        return self.family

    @property
    def levels(self) -> tuple[int, ...]:
        """The levels 1 to n, empty for a challenge of a single strength."""
        return tuple(range(1, len(self.strengths) + 1)) if len(self.strengths) > 1 else ()

    def strength_at(self, level: int | None) -> float | tuple[float, ...]:
        """Return the strength of a level; raise a GradbenchError if it does not exist."""
        self.check_level(level)
        return self.strengths[0 if level is None else level - 1]

    def settings(self) -> Mapping[str, Any]:
        """Return the other settings that the images depend on, JSON-able."""
        return {}

    @abstractmethod
    def perturb(
        self,
        clean: CleanBatch,
        strength: float | tuple[float, ...],
        seed: int,
        network: Backbone | None,
    ) -> Tensor:
        """Return (B, C, H, W) grey levels in [0, 255], float and not yet whole numbers."""

    @final
    def to_pixels(self, grey: Tensor, clean: CleanBatch) -> np.ndarray:
        """Return uint8 pixels, or float32 in [0, 1] without the grid."""
        if not clean.quantise:
            return (grey / 255).float().cpu().numpy()
        whole = grey.floor() if self.truncates else clean.rounded(grey)
        return to_grid(whole / 255).cpu().numpy()
