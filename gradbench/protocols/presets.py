"""Protocols of the papers, and one without any challenge in the fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gradbench.errors import GradbenchError
from gradbench.protocols.base import Fold, Grouped, Protocol, Rows


class Icip2020(Grouped):
    """One rotation of 40 % fit, 40 % choose, 20 % measure (Lee and AlRegib 2020).

    Differs from the paper: images of one source stay together; `split=random` mirrors the paper,
    which does not say how it divided twins.

    Args:
        name: of the protocol.
        description: one line for `gradbench list`.
        split: `grouped`, or `random`: every image by itself.

    Raises:
        GradbenchError: for an unknown split.
    """

    def __init__(self, name: str = "icip2020", description: str = "", split: str = "grouped"):
        super().__init__(name, description, 5, split)
        self.ratio = None

    @property
    def told(self) -> str:
        """See `Protocol`."""
        return (
            "One division, 40 % for fitting, 40 % for choosing, 20 % measured, as in the paper of "
            "2020; all detectors on the same images."
        )

    def torn(self) -> Protocol | None:
        """See `Protocol`."""
        return None if self.split == "random" else Icip2020(self.name, split="random")

    def folds(
        self, normal_groups: np.ndarray, abnormal_groups: np.ndarray, seed: int | str = 0
    ) -> list[Fold]:
        """Return the one rotation."""
        return super().folds(normal_groups, abnormal_groups, seed)[:1]


class Access2023(Grouped):
    """Five folds, repeated with another division (Lee, Prabhushankar, AlRegib 2023).

    The folds of repetition r come after those of r - 1; the first are those of `grouped`. The paper
    reports detection accuracy: at 0.5 for H, at the best threshold for all others.

    Args:
        name: of the protocol.
        description: one line for `gradbench list`.
        folds: of each repetition, at least 3.
        repeats: repetitions, at least 1.
        split: `grouped`, or `random`: every image by itself.

    Raises:
        GradbenchError: for too few folds or repetitions or an unknown split.
    """

    def __init__(
        self,
        name: str = "access2023",
        description: str = "",
        folds: int = 5,
        repeats: int = 2,
        split: str = "grouped",
    ):
        super().__init__(name, description, folds, split)
        if type(repeats) is not int or repeats < 1:
            raise GradbenchError(f"protocol.repeats={repeats}: a whole number, at least 1")
        self.repeats = repeats

    def settings(self) -> Mapping[str, Any]:
        """See `Protocol`."""
        return {**super().settings(), "repeats": self.repeats}

    @property
    def told(self) -> str:
        """See `Protocol`."""
        return (
            f"A value is the mean over {self.count} folds in each of {self.repeats} divisions; "
            "every image is measured once in each, and counts as one image in the intervals; all "
            "detectors on the same images."
        )

    def torn(self) -> Protocol | None:
        """See `Protocol`."""
        if self.split == "random":
            return None
        return Access2023(self.name, "", self.count, self.repeats, "random")

    def folds(
        self, normal_groups: np.ndarray, abnormal_groups: np.ndarray, seed: int | str = 0
    ) -> list[Fold]:
        """Return the folds of all repetitions."""
        seeds = [seed, *(f"{seed}/repeat {r}" for r in range(1, self.repeats))]
        return [fold for s in seeds for fold in super(Access2023, self).folds(
            normal_groups, abnormal_groups, s)]  # fmt: skip


class Unsupervised(Protocol):
    """All images are measured at once, by detectors that see no challenge of others' making.

    Detectors that fit or choose on challenge images are left out.

    Args:
        name: of the protocol.
        description: one line for `gradbench list`.
    """

    supervision = ("none", "synthetic")

    def __init__(self, name: str = "unsupervised", description: str = ""):
        self.name, self.description = name, description

    @property
    def told(self) -> str:
        """See `Protocol`."""
        return (
            "No image of a challenge is fitted on or chosen with; all images are measured at once, "
            "all detectors on the same images."
        )

    def folds(
        self, normal_groups: np.ndarray, abnormal_groups: np.ndarray, seed: int | str = 0
    ) -> list[Fold]:
        """Return one fold that measures everything.

        Raises:
            GradbenchError: if a side has no image.
        """
        for side, groups in (("normal", normal_groups), ("abnormal", abnormal_groups)):
            if not len(groups):
                raise GradbenchError(f"protocol {self.name}: there is no {side} image to measure")
        none = np.empty(0, dtype=int)
        whole = Rows(np.arange(len(normal_groups)), np.arange(len(abnormal_groups)))
        return [Fold(Rows(none, none), Rows(none, none), whole)]
