"""Protocols divide the images of both sides into those fitted on, chosen with and measured."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from gradbench.data.image_lists import Benchmark
from gradbench.errors import GradbenchError, unknown
from gradbench.support.code_keys import stable_name

RANDOM = "random"
SPLITS = ("grouped", RANDOM)


@dataclass(frozen=True)
class SideRows:
    """Images of both sides, as ascending indices into the normal and the abnormal set."""

    normal: np.ndarray
    abnormal: np.ndarray


@dataclass(frozen=True)
class Fold:
    """One rotation of a protocol.

    Images that weights are fitted on; images for early stopping, hyperparameters and thresholds;
    and images that are scored once and never looked at before.
    """

    fit: SideRows
    choose: SideRows
    measure: SideRows


class Protocol(ABC):
    """Divides the images of both sides into those fitted on, chosen with and measured.

    Attributes:
        name: of the protocol in rows.
        split: how images are divided, for the column `protocol`; `random` where twins may part.
        repeats: how often every measured image is measured, with other fits each time.
        ratio: images measured by those fitted on and chosen with, in each rotation; None where
            there is a single rotation, and nothing can be said of its spread.
        supervision: kinds of detectors that are measured; all others are left out and named.

    The arguments are a name in place of that of the class, and a line for `gradbench list`.
    """

    name: str
    split: str = "grouped"
    repeats: int = 1
    ratio: float | None = None
    supervision: ClassVar[tuple[str, ...]] = ("none", "synthetic", "tuning", "training")

    def __init__(self, name: str | None = None, description: str = ""):
        self.name, self.description = name or self.name, description

    @abstractmethod
    def folds(
        self, normal_groups: np.ndarray, abnormal_groups: np.ndarray, seed: int | str = 0
    ) -> list[Fold]:
        """Return one `Fold` per rotation, for the group of each normal and abnormal image."""

    def settings(self) -> Mapping[str, Any]:
        """Return everything besides groups and seed that the folds depend on, JSON-able."""
        return {"_target_": stable_name(type(self)), "name": self.name}

    def benchmark(self, in_dist: str) -> Benchmark | None:
        """Return the published lists of images that are measured; None to measure whole sets.

        Raises:
            GradbenchError: if there are none for this in-distribution set.
        """
        return None

    @property
    def title(self) -> str:
        """The name in rows; `random` says that twins were not kept together."""
        if self.split != RANDOM:
            return self.name
        return RANDOM if self.name == "grouped" else f"{self.name}_{RANDOM}"

    @property
    @abstractmethod
    def explanation(self) -> str:
        """How a value comes about, in one or two sentences for the head of a table."""

    def ungrouped(self) -> Self | None:
        """Return the same protocol with every image by itself, None where there is none."""
        return None


class Grouped(Protocol):
    """Rotating folds in which all images of a group stay together.

    Rotation r of five fits on folds r and r+1, chooses on r+2 and r+3 and measures on r+4, so every
    image is measured exactly once. With another number of folds, one measures and the others are
    divided between fit and choose, the odd one going to choose.

    Args:
        name: see `Protocol`.
        description: likewise.
        folds: number of folds, at least 3.
        split: `grouped`, or `random`: every image by itself whatever its group. A twin of a
            measured image may then be fitted on, and the gap to `grouped` measures that leak.

    Raises:
        GradbenchError: for fewer than 3 folds or an unknown split.
    """

    name = "grouped"
    explanation = (
        "A value is the mean over its folds; every image is measured once, and all detectors on "
        "the same images."
    )

    def __init__(
        self,
        name: str | None = None,
        description: str = "",
        folds: int = 5,
        split: str = "grouped",
    ):
        super().__init__(name, description)
        if split not in SPLITS:
            raise unknown("split", str(split), SPLITS)
        if type(folds) is not int or folds < 3:
            raise GradbenchError(f"protocol.folds={folds}: choose a whole number of at least 3")
        self.count, self.split = folds, split
        self.ratio = 1 / (folds - 1)

    def settings(self) -> Mapping[str, Any]:
        """Return everything that the folds depend on; kept products are known by these."""
        return {**super().settings(), "folds": self.count, "split": self.split}

    def ungrouped(self) -> Self | None:
        """Return the same protocol with every image by itself, None if it is that already."""
        if self.split == RANDOM:
            return None
        protocol = copy(self)
        protocol.split = RANDOM
        return protocol

    def folds(
        self, normal_groups: np.ndarray, abnormal_groups: np.ndarray, seed: int | str = 0
    ) -> list[Fold]:
        """Return one `Fold` per rotation; see `parts`."""
        sides = self.parts(normal_groups, abnormal_groups, seed)
        half = (self.count - 1) // 2

        def rows(parts: list[int]) -> SideRows:
            return SideRows(*(np.flatnonzero(np.isin(side, parts)) for side in sides))

        turns = [[(r + step) % self.count for step in range(self.count)] for r in range(self.count)]
        return [Fold(rows(t[:half]), rows(t[half:-1]), rows(t[-1:])) for t in turns]

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
        sides = {
            side: np.asarray(groups, dtype=str).tolist()
            for side, groups in (("normal", normal_groups), ("abnormal", abnormal_groups))
        }
        if self.split == RANDOM:
            sides = {side: _distinct_names(names, side) for side, names in sides.items()}
        counts = [Counter(names) for names in sides.values()]
        if counts[0].keys() & counts[1].keys():
            sizes = {name: tuple(side[name] for side in counts) for name in counts[0] | counts[1]}
            part_of = [partition(sizes, self.count, "folds", seed)] * 2
        else:
            part_of = [
                partition({name: (n,) for name, n in side.items()}, self.count, "folds", seed)
                for side in counts
            ]
        parts = []
        for (side, names), part_of_name in zip(sides.items(), part_of):
            part = np.array([part_of_name[name] for name in names], dtype=int)
            filled = len(np.unique(part))
            if filled < self.count:
                raise GradbenchError(
                    f"{self.count} folds need {self.count} {side} groups (sources, tracks or "
                    f"regions) of like size, but the {len(set(names))} groups of the {len(names)} "
                    f"{side} images fill {filled}: give more images or set protocol.folds lower"
                )
            parts.append(part)
        return parts[0], parts[1]


def _distinct_names(names: list[str], side: str) -> list[str]:
    """Return a name of its own for every image."""
    seen: Counter[str] = Counter()
    distinct = []
    for name in names:
        distinct.append(f"{side} {name} {seen[name]}")
        seen[name] += 1
    return distinct


def shuffled(names: Iterable[str], *seed: int | str) -> list[str]:
    """Return the distinct names in an arbitrary order that the seed fixes.

    The order is that of the SHA-256 of seed and name: it depends neither on the order of the
    names nor on the version of any library.
    """
    salt = "/".join(map(str, seed))
    return sorted(
        dict.fromkeys(names), key=lambda name: hashlib.sha256(f"{salt}\n{name}".encode()).digest()
    )


def partition(sizes: Mapping[str, Sequence[int]], parts: int, *seed: int | str) -> dict[str, int]:
    """Give every group to one of `parts` parts, so that all sides are balanced.

    The largest groups go first, each to the part that has least of what the group brings; groups
    of equal size go in the order of `shuffled`. Where every group has one image a side, parts
    differ by at most one image on each side. `sizes` are the images of each group, one number a
    side; the parts are numbered from 0.
    """
    totals = [max(sum(side), 1) for side in zip(*sizes.values())]
    loads = [[0] * len(totals) for _ in range(parts)]
    order = shuffled(sizes, *seed)
    order.sort(key=lambda name: -sum(n / total for n, total in zip(sizes[name], totals)))
    part_of = {}
    for name in order:
        # What the sum of squared shares grows by, less what is the same for every part.
        pull = [n / total**2 for n, total in zip(sizes[name], totals)]
        costs = [sum(a * b for a, b in zip(load, pull)) for load in loads]
        part_of[name] = part = costs.index(min(costs))
        for side, n in enumerate(sizes[name]):
            loads[part][side] += n
    return part_of
