"""The declaration of a task, and the bootstrap that gives every task its intervals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from gradbench.data.imageset import ImageSet
from gradbench.statistics.bootstrap import (
    BootstrapSamples,
    EvaluationSettings,
    FoldScores,
    Sources,
    Weights,
    bootstrap,
)
from gradbench.statistics.intervals import MetricEstimate
from gradbench.statistics.metrics import Measure

SIDES = ("normal", "abnormal")
Targets = Sequence[tuple[np.ndarray, np.ndarray]]
"""Targets of the measured images of every fold: of the normal side (n, ...), of the abnormal."""


class Task(ABC):
    """A question to a method: its target, and the measures by which predictions are judged.

    A task is one Python file and one YAML file in `configs/task/`. Its measures take weights of
    images, so that one bootstrap over sources serves all tasks.

    Attributes:
        name: of its file.
        predicts: what the methods that it measures predict, see `methods.base.PREDICTIONS`.
        has_controls: the controls and thresholds of detection apply to it.
        measures: of the task, as they stand in the rows; the first one is compared between methods
            and averaged over challenges.
        sides: whose images are measured: `normal`, `abnormal`, or both.
    """

    name: str = ""
    predicts: ClassVar[str]
    has_controls: ClassVar[bool] = False
    measures: ClassVar[Sequence[Measure]]
    sides: ClassVar[Sequence[str]] = SIDES

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
        settings: EvaluationSettings,
        repeats: int = 1,
    ) -> list[MetricEstimate]:
        """Return every measure with its interval: the mean over folds, bootstrapped over sources.

        Args:
            folds: predictions and groups of the measured images of every fold.
            targets: of the same images.
            settings: of the bootstrap.
            repeats: how often the folds measure every image; it counts once.

        Raises:
            GradbenchError: if a fold has no image.
        """
        counts = [
            sum(len(getattr(fold, side)) for fold in folds) // repeats
            for side in ("normal", "abnormal")
        ]
        return [
            MetricEstimate(
                *measure,
                samples.value,
                *samples.interval(settings.confidence),
                tuple(map(float, samples.per_fold)),
                *counts,
            )
            for measure, samples in self._bootstrap(folds, targets, settings).items()
        ]

    def samples(
        self,
        folds: Sequence[FoldScores],
        targets: Targets,
        settings: EvaluationSettings,
    ) -> BootstrapSamples:
        """Return the headline in every fold and resample, for comparisons and means."""
        return self._bootstrap(folds, targets, settings)[self.headline]

    def _bootstrap(
        self, folds: Sequence[FoldScores], targets: Targets, settings: EvaluationSettings
    ) -> dict[Measure, BootstrapSamples]:
        wanted = [SIDES.index(side) for side in self.sides]
        parts = [
            (
                np.concatenate([getattr(fold, side) for side in self.sides]),
                np.concatenate([target[number] for number in wanted]),
            )
            for fold, target in zip(folds, targets)
        ]

        def values(weights: Weights) -> dict[Measure, list[np.ndarray]]:
            by_measure = {measure: [] for measure in self.measures}
            for part, both in zip(parts, weights):
                chosen = both and np.concatenate([both[number] for number in wanted], axis=1)
                for measure, value in self.measure(*part, chosen).items():
                    by_measure[measure].append(value)
            return by_measure

        return bootstrap(Sources(folds), values, settings.replicates, settings.seed)
