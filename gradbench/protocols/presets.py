"""Protocols of the papers and of public code, one across challenges, and one without any fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gradbench.data.image_lists import Benchmark, read_benchmark
from gradbench.errors import GradbenchError
from gradbench.protocols.base import Fold, Grouped, Protocol, SideRows


class Icip2020(Grouped):
    """One rotation of 40 % fit, 40 % choose, 20 % measure (Lee and AlRegib 2020).

    Differs from the paper: images of one source stay together; `split=random` mirrors the paper,
    which does not say how it divided twins.
    """

    name = "icip2020"
    explanation = (
        "One division, 40 % for fitting, 40 % for choosing, 20 % measured, as in the paper of "
        "2020; all detectors on the same images."
    )

    def __init__(self, name: str | None = None, description: str = "", split: str = "grouped"):
        super().__init__(name, description, 5, split)
        self.ratio = None

    def folds(
        self, normal_groups: np.ndarray, abnormal_groups: np.ndarray, seed: int | str = 0
    ) -> list[Fold]:
        """Return the one rotation."""
        return super().folds(normal_groups, abnormal_groups, seed)[:1]


class Access2023(Grouped):
    """Five folds, repeated with another division (Lee, Prabhushankar, AlRegib 2023).

    The folds of repetition r come after those of r - 1; the first are those of `grouped`. The paper
    reports detection accuracy: at 0.5 for H, at the best threshold for all others.
    """

    name = "access2023"

    def __init__(
        self,
        name: str | None = None,
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
        """Return what `Grouped` does, and the repetitions."""
        return {**super().settings(), "repeats": self.repeats}

    @property
    def explanation(self) -> str:
        """How a value comes about."""
        return (
            f"A value is the mean over {self.count} folds in each of {self.repeats} divisions; "
            "every image is measured once in each, and counts as one image in the intervals; all "
            "detectors on the same images."
        )

    def folds(
        self, normal_groups: np.ndarray, abnormal_groups: np.ndarray, seed: int | str = 0
    ) -> list[Fold]:
        """Return the folds of all repetitions."""
        folds = []
        for s in (seed, *(f"{seed}/repeat {r}" for r in range(1, self.repeats))):
            folds += super().folds(normal_groups, abnormal_groups, s)
        return folds


class Transfer(Grouped):
    """Detectors fitted on one challenge as `grouped` does, measured on the others."""

    name = "transfer"
    explanation = (
        "`DETECTOR@CHALLENGE` was fitted on other images of that challenge alone and is measured "
        "on all others. A value is the mean over its folds; every image is measured once, by a "
        "detector that saw no image of its source."
    )

    def __init__(self, name: str | None = None, description: str = "", folds: int = 5):
        super().__init__(name, description, folds)

    def ungrouped(self) -> None:
        """Return None: the leak between twins is measured where both are of one challenge."""

    def within(self) -> Grouped:
        """Return the protocol of a challenge measured on itself."""
        return Grouped(folds=self.count)

    def across(
        self,
        fitted: tuple[np.ndarray, np.ndarray],
        measured: tuple[np.ndarray, np.ndarray],
        seed: int | str = 0,
    ) -> list[SideRows]:
        """Return for each fold of the fitted challenge the images that it measures of another.

        An image whose source, track or region is among those of the fitted challenge (or of its
        clean images) is measured in the fold that neither fits nor chooses with it; all others are
        divided as `grouped` divides the measured challenge. So every image is measured once, and
        a challenge is measured in the same folds whatever was fitted on, where its sources are all
        its own or all those of the clean images.

        Given are the groups of the normal and the abnormal images of both challenges.

        Raises:
            GradbenchError: if the groups of a side do not fill every fold.
        """
        part_of: dict[str, int] = {}
        for groups, parts in zip(fitted, self.parts(*fitted, seed)):
            part_of |= zip(np.asarray(groups, dtype=str).tolist(), parts.tolist())
        sides = []
        for groups, parts in zip(measured, self.parts(*measured, seed)):
            names = np.asarray(groups, dtype=str).tolist()
            sides.append(np.array([part_of.get(n, p) for n, p in zip(names, parts)], dtype=int))
        # rotation r measures part r - 1, see `Grouped`
        turns = [(r - 1) % self.count for r in range(self.count)]
        return [SideRows(*(np.flatnonzero(side == turn) for side in sides)) for turn in turns]


class Unsupervised(Protocol):
    """All images are measured at once, by detectors that see no challenge of others' making.

    Detectors that fit or choose on challenge images are left out.
    """

    name = "unsupervised"
    explanation = (
        "No image of a challenge is fitted on or chosen with; all images are measured at once, all "
        "detectors on the same images."
    )
    supervision = ("none", "synthetic")

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
        none = SideRows(np.empty(0, dtype=int), np.empty(0, dtype=int))
        all_of_them = SideRows(np.arange(len(normal_groups)), np.arange(len(abnormal_groups)))
        return [Fold(none, none, all_of_them)]


class OpenOod(Unsupervised):
    """OpenOOD v1.5 (Zhang et al. 2023): its published lists of images, measured at once.

    Normal are the 9,000 listed test images of CIFAR-10 or CIFAR-100. The other 1,000, OpenOOD's
    validation images, are the hold-out of networks that were trained on all training images; no
    measured image is then seen by any detector. Rows of listed sets are of the challenge_set `near`
    or `far`, with a mean over each; those of other challenges are measured whole and count in
    neither. OpenOOD's own measures are AUROC, AUPR of both sides and FPR95 at 95 % of the abnormal
    images.

    With `full_spectrum`, one image of CIFAR-10-C for each measured test image counts as normal too.

    Differs from the paper: detectors that choose their settings on OpenOOD's 1,000 validation
    images of TinyImageNet are left out. AUPR is average precision, there the trapezoidal rule.
    Images are those of the sets themselves, unless OpenOOD's download is at hand, whose MNIST and
    SVHN are JPEG copies; nor does the list of CIFAR-10-C tell the family and level of an image,
    which are drawn here.
    """

    name = "openood"

    def __init__(self, name: str | None = None, description: str = "", full_spectrum: bool = False):
        super().__init__(name, description)
        self.full_spectrum = full_spectrum

    @property
    def title(self) -> str:
        """The name in rows."""
        return f"{self.name}_full_spectrum" if self.full_spectrum else self.name

    @property
    def explanation(self) -> str:
        """How a value comes about."""
        also = "corrupted images count as normal too; " if self.full_spectrum else ""
        return (
            "The published image lists of OpenOOD v1.5, measured at once, as far as they are at "
            f"hand; {also}no image of a challenge is fitted on or chosen with."
        )

    def benchmark(self, in_dist: str) -> Benchmark:
        """Return OpenOOD's lists of an in-distribution set."""
        return read_benchmark("openood", in_dist, self.full_spectrum)


class Reference(Protocol):
    """The first min(1,000, 10 %) of each set, in file order, tune; the rest is measured.

    The division of the public Mahalanobis code
    (https://github.com/pokaxpoka/deep_Mahalanobis_detector). The first half of the tuning images
    fits, the second chooses. In the original an image and what was made from it have the same place
    in their files, so both fall on one side. Here that is enforced: sources go in the order in
    which they first appear (by their place relative to the size of the set, on the side where it is
    lower), and stay whole, until one side has its number.

    Differs from the paper: a source (or track) that would be cut goes to the later part as a whole,
    and clean images with noisy copies beside them count as one set.
    """

    name = "reference"
    explanation = (
        "One division in file order: of the first min(1,000, 10 %) of each set, half is fitted on "
        "and half chosen with; the rest is measured, as in the public code of Mahalanobis and "
        "ODIN. Images of one source stay together; all detectors on the same images."
    )
    MOST, SHARE = 1000, 0.1

    def folds(
        self, normal_groups: np.ndarray, abnormal_groups: np.ndarray, seed: int | str = 0
    ) -> list[Fold]:
        """Return the one division; it depends on the order of the images, not on the seed.

        Raises:
            GradbenchError: if fitting, choosing or measuring gets no image of a side.
        """
        sides = [np.asarray(side, dtype=str) for side in (normal_groups, abnormal_groups)]
        if np.intersect1d(*sides).size:
            parts = self._divided(sides)
        else:
            parts = [self._divided([side])[0] for side in sides]
        rows = [[np.flatnonzero(part == which) for part in parts] for which in range(3)]
        for purpose, of_sides in zip(("fitting", "choosing", "measuring"), rows):
            for side, groups, own in zip(("normal", "abnormal"), sides, of_sides):
                if not len(own):
                    raise GradbenchError(
                        f"protocol reference: {purpose} gets none of the {len(groups)} {side} "
                        f"images ({len(np.unique(groups))} sources, tracks or regions): give more "
                        "images, or take protocol=grouped"
                    )
        return [Fold(*(SideRows(*of_sides) for of_sides in rows))]

    def _divided(self, sides: list[np.ndarray]) -> list[np.ndarray]:
        """Return 0 (fit), 1 (choose) or 2 (measure) for each image of sides that share sources."""
        names, index = np.unique(np.concatenate(sides), return_inverse=True)
        places = np.split(index, np.cumsum([len(side) for side in sides])[:-1])
        first = np.full((len(sides), len(names)), np.inf)
        sizes = np.zeros((len(sides), len(names)), dtype=int)
        for number, place in enumerate(places):
            distinct, row = np.unique(place, return_index=True)
            first[number, distinct] = row / len(place)
            sizes[number] = np.bincount(place, minlength=len(names))
        order = np.argsort(first.min(axis=0), kind="stable")
        reached = np.cumsum(sizes[:, order], axis=1)
        quotas = np.array([min(self.MOST, int(self.SHARE * len(side))) for side in sides])[:, None]
        part = np.full(len(names), 2)
        part[order[(reached <= quotas).all(axis=0)]] = 1
        part[order[(2 * reached <= quotas).all(axis=0)]] = 0
        return [part[place] for place in places]
