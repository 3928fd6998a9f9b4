"""Who may see which images: fit, choose, measure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gradbench.errors import GradbenchError, unknown
from gradbench.protocols.partition import partition
from gradbench.support.sources import stable_name

RANDOM = "random"
SPLITS = ("grouped", RANDOM)


def random_name(name: str) -> str:
    """Return what a protocol is called in rows where every image goes by itself.

    >>> random_name("grouped"), random_name("icip2020")
    ('random', 'icip2020_random')
    """
    return RANDOM if name == "grouped" else f"{name}_{RANDOM}"


@dataclass(frozen=True)
class Rows:
    """Images of both sides, as ascending indices into the normal and the abnormal set."""

    normal: np.ndarray
    abnormal: np.ndarray


@dataclass(frozen=True)
class Fold:
    """One rotation of a protocol.

    Attributes:
        fit: images that weights are fitted on.
        choose: images for early stopping, hyperparameters and thresholds.
        measure: images that are scored once and never looked at before.
    """

    fit: Rows
    choose: Rows
    measure: Rows


class Protocol(ABC):
    """Divides the images of both sides into what is fitted on, chosen with and measured.

    Attributes:
        name: of the protocol in rows.
        description: one line for `gradbench list`.
        split: how images are divided, for the column `protocol`; `random` where twins may part.
        repeats: how often every measured image is measured, with other fits each time.
        ratio: images measured by those fitted on and chosen with, in each rotation; None where
            there is a single rotation, and nothing can be said of its spread.
        supervision: kinds of detectors that are measured; all others are left out and named.
    """

    name: str
    description: str = ""
    split: str = "grouped"
    repeats: int = 1
    ratio: float | None = None
    supervision: ClassVar[tuple[str, ...]] = ("none", "synthetic", "tuning", "training")

    @abstractmethod
    def folds(
        self, normal_groups: np.ndarray, abnormal_groups: np.ndarray, seed: int = 0
    ) -> list[Fold]:
        """Return one `Fold` per rotation, for the group of each normal and abnormal image."""

    def settings(self) -> Mapping[str, Any]:
        """Return everything besides groups and seed that the folds depend on, JSON-able."""
        return {"_target_": stable_name(type(self)), "name": self.name}

    @property
    @abstractmethod
    def told(self) -> str:
        """How a value comes about, in one or two sentences for the head of a table."""

    def torn(self) -> Protocol | None:
        """Return the same protocol with every image by itself, None where there is none."""
        return None


class Grouped(Protocol):
    """Rotating folds in which all images of a group stay together.

    Rotation r of five fits on folds r and r+1, chooses on r+2 and r+3 and measures on r+4, so every
    image is measured exactly once. With another number of folds, one measures and the others are
    divided between fit and choose, the odd one going to choose.

    Args:
        name: of the protocol.
        description: one line for `gradbench list`.
        folds: number of folds, at least 3.
        split: `grouped`, or `random`: every image by itself whatever its group. A twin of a
            measured image may then be fitted on, and the gap to `grouped` measures that leak.

    Raises:
        GradbenchError: for fewer than 3 folds or an unknown split.
    """

    def __init__(
        self, name: str = "grouped", description: str = "", folds: int = 5, split: str = "grouped"
    ):
        if split not in SPLITS:
            raise unknown("split", str(split), SPLITS)
        if type(folds) is not int or folds < 3:
            raise GradbenchError(f"protocol.folds={folds}: choose a whole number of at least 3")
        self.name, self.description, self.count, self.split = name, description, folds, split
        self.ratio = 1 / (folds - 1)

    def settings(self) -> Mapping[str, Any]:
        """Return what the folds depend on; kept products of `grouped` are known by these."""
        return {**super().settings(), "folds": self.count, "split": self.split}

    @property
    def told(self) -> str:
        """See `Protocol`."""
        return (
            "A value is the mean over its folds; every image is measured once, and all detectors "
            "on the same images."
        )

    def torn(self) -> Protocol | None:
        """Return the same protocol with every image by itself, None if it is that already."""
        if self.split == "random":
            return None
        return type(self)(name=self.name, folds=self.count, split="random")

    def folds(
        self, normal_groups: np.ndarray, abnormal_groups: np.ndarray, seed: int | str = 0
    ) -> list[Fold]:
        """Return one `Fold` per rotation; see `parts`.

        Args:
            normal_groups: (N,) group of each normal image.
            abnormal_groups: (M,) group of each abnormal image.
            seed: of the division.

        Raises:
            GradbenchError: if the groups of a side do not fill every fold.
        """
        parts = self.parts(normal_groups, abnormal_groups, seed)
        return [self._rotation(r, *parts) for r in range(self.count)]

    def parts(
        self, normal_groups: np.ndarray, abnormal_groups: np.ndarray, seed: int | str = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the part, 0 to folds - 1, of each normal and each abnormal image.

        Where the sides share a group (an image and what was made from it), the union of groups is
        divided, balanced on both sides; otherwise each side is divided by itself, and the folds of
        the normal images are the same for every challenge. The division depends on the names of
        the groups and the seed, not on the order of the images; with split=random, images that
        share a group and a side are told apart by their order.

        Raises:
            GradbenchError: if the groups of a side do not fill every part.
        """
        normal = np.asarray(normal_groups, dtype=str).tolist()
        abnormal = np.asarray(abnormal_groups, dtype=str).tolist()
        if self.split == "random":
            normal, abnormal = _singles(normal, "normal"), _singles(abnormal, "abnormal")
        ones, others = Counter(normal), Counter(abnormal)
        if ones.keys() & others.keys():
            sizes = {name: (ones[name], others[name]) for name in ones | others}
            of_normal = of_abnormal = partition(sizes, self.count, "folds", seed)
        else:
            of_normal, of_abnormal = (
                partition({name: (n,) for name, n in side.items()}, self.count, "folds", seed)
                for side in (ones, others)
            )
        rows = []
        for side, names, part_of in (
            ("normal", normal, of_normal),
            ("abnormal", abnormal, of_abnormal),
        ):
            part = np.array([part_of[name] for name in names], dtype=int)
            filled = len(np.unique(part))
            if filled < self.count:
                raise GradbenchError(
                    f"{self.count} folds need {self.count} {side} groups (sources, tracks or "
                    f"regions) of like size, but the {len(set(names))} groups of the {len(names)} "
                    f"{side} images fill {filled}: give more images or set protocol.folds lower"
                )
            rows.append(part)
        return rows[0], rows[1]

    def _rotation(self, r: int, normal: np.ndarray, abnormal: np.ndarray) -> Fold:
        turn = [(r + step) % self.count for step in range(self.count)]
        half = (self.count - 1) // 2

        def rows(parts: list[int]) -> Rows:
            return Rows(*(np.flatnonzero(np.isin(side, parts)) for side in (normal, abnormal)))

        return Fold(rows(turn[:half]), rows(turn[half:-1]), rows(turn[-1:]))


def _singles(names: list[str], side: str) -> list[str]:
    """Return a name of its own for every image."""
    seen: Counter[str] = Counter()
    single = []
    for name in names:
        single.append(f"{side} {name} {seen[name]}")
        seen[name] += 1
    return single
