"""The declaration of a task, and the bootstrap that gives every task its intervals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from gradbench.data.imageset import ImageSet
from gradbench.statistics.bootstrap import BootstrapSamples, FoldScores, Sources
from gradbench.statistics.intervals import MetricEstimate
from gradbench.statistics.metrics import Measure

Targets = Sequence[tuple[np.ndarray, np.ndarray]]
"""Targets of the measured images of every fold: of the normal side (n, ...), of the abnormal."""


class Task(ABC):
    """A question to a method: its target, and the measures by which predictions are judged.

    A task is one Python file and one YAML file in `configs/task/`. Its measures take weights of
    images, so that one bootstrap over sources serves all tasks.

    Attributes:
        measures: of the task, as they stand in the rows; the first one is compared between methods
            and averaged over challenges.
        sides: whose images are measured: `normal`, `abnormal`, or both.
    """

    measures: ClassVar[Sequence[Measure]]
    sides: ClassVar[Sequence[str]] = ("normal", "abnormal")

    @property
    def headline(self) -> Measure:
        """The measure that is compared and averaged."""
        return self.measures[0]

    @abstractmethod
    def target(self, images: ImageSet, abnormal: bool) -> np.ndarray:
        """Return the targets (N, ...) of the images of one side."""

    @abstractmethod
    def measure(
        self, prediction: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None
    ) -> Mapping[Measure, np.ndarray]:
        """Return each measure as fractions (R,), for R weightings of the images.

        Args:
            prediction: (N, ...) predictions of a method.
            target: (N, ...) their targets.
            weights: (R, N) weights of the images, None for weights of one and R = 1.
        """

    def estimates(
        self,
        folds: Sequence[FoldScores],
        targets: Targets,
        replicates: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
        repeats: int = 1,
    ) -> list[MetricEstimate]:
        """Return every measure with its interval: the mean over folds, bootstrapped over sources.

        Args:
            folds: predictions and groups of the measured images of every fold.
            targets: of the same images.
            replicates: resamples.
            confidence: of the intervals.
            seed: of the resamples.
            repeats: how often the folds measure every image; it counts once.

        Raises:
            GradbenchError: if a fold has no image.
        """
        samples = self._samples(folds, targets, replicates, seed)
        counts = [
            sum(len(getattr(fold, side)) for fold in folds) // repeats
            for side in ("normal", "abnormal")
        ]
        return [
            MetricEstimate(
                *measure,
                found.value,
                *found.interval(confidence),
                tuple(map(float, found.per_fold)),
                *counts,
            )
            for measure, found in samples.items()
        ]

    def samples(
        self, folds: Sequence[FoldScores], targets: Targets, replicates: int = 1000, seed: int = 0
    ) -> BootstrapSamples:
        """Return the headline in every fold and resample, for comparisons and means."""
        return self._samples(folds, targets, replicates, seed)[self.headline]

    def _samples(
        self, folds: Sequence[FoldScores], targets: Targets, replicates: int, seed: int
    ) -> dict[Measure, BootstrapSamples]:
        parts = [self._measured(fold, target) for fold, target in zip(folds, targets)]

        def values(weights: Sequence[np.ndarray | None]) -> dict[Measure, np.ndarray]:
            found = [self.measure(*part, weight) for part, weight in zip(parts, weights)]
            return {measure: np.stack([f[measure] for f in found]) for measure in self.measures}

        per_fold = values([None] * len(folds))
        samples = {measure: np.empty(replicates) for measure in self.measures}
        wanted = [side in self.sides for side in ("normal", "abnormal")]
        for rows, weights in Sources(folds).resample(replicates, seed):
            chosen = [[w for w, is_wanted in zip(both, wanted) if is_wanted] for both in weights]
            for measure, by_fold in values([np.concatenate(w, axis=1) for w in chosen]).items():
                samples[measure][rows] = by_fold.mean(axis=0)
        return {m: BootstrapSamples(per_fold[m][:, 0], samples[m]) for m in self.measures}

    def _measured(
        self, fold: FoldScores, target: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return predictions and targets of the images that the task measures."""
        sides = dict(zip(("normal", "abnormal"), target))
        return (
            np.concatenate([getattr(fold, side) for side in self.sides]),
            np.concatenate([sides[side] for side in self.sides]),
        )
