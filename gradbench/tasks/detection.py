"""Detection: is this input unlike the images that f was trained on?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gradbench.data.imageset import ImageSet
from gradbench.statistics.bootstrap import (
    BootstrapSamples,
    EvaluationSettings,
    FoldScores,
    bootstrap_auroc,
)
from gradbench.statistics.exact_bounds import check_bounds
from gradbench.statistics.intervals import MetricEstimate, measure_detection
from gradbench.statistics.metrics import MEASURES, Measure, SortedScores
from gradbench.tasks.base import Targets, Task

WITHOUT_THRESHOLD = tuple(m for m in MEASURES if m.threshold_rule in ("", "best"))


class Detection(Task):
    """Scores of images, higher = more abnormal, against their side: normal or abnormal."""

    predicts = "score"
    has_controls = True
    measures = MEASURES

    def __init__(self, name: str = "detection", description: str = ""):
        self.name, self.description = name, description

    def target(self, images: ImageSet, abnormal: bool) -> np.ndarray:
        """Return True (N,) for abnormal images."""
        return np.full(len(images), abnormal)

    def measure(
        self, prediction: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None
    ) -> Mapping[Measure, np.ndarray]:
        """Return the measures that need no threshold chosen on other images, see `Task`."""
        curve = SortedScores(prediction, target).curve(weights)
        return {measure: curve.value(measure) for measure in WITHOUT_THRESHOLD}

    def estimates(
        self,
        folds: Sequence[FoldScores],
        targets: Targets,
        settings: EvaluationSettings,
        repeats: int = 1,
    ) -> list[MetricEstimate]:
        """Return every measure, thresholds from *choose* and exact bounds included, see `Task`.

        Raises:
            GradbenchError: if a fold has no image, or measures of the same images contradict each
                other (methods.md, a.9).
        """
        estimates = measure_detection(
            folds, settings.replicates, settings.confidence, settings.seed, repeats
        )
        by_measure = {Measure(e.metric, e.side, e.threshold_rule): e for e in estimates}
        auroc = by_measure[self.headline]
        best = by_measure[Measure("detection_accuracy", "", "best")]
        smallest = min(auroc.n_normal, auroc.n_abnormal)
        for side in ("normal", "abnormal"):
            fpr95 = by_measure[Measure("fpr95", side)].value
            check_bounds(auroc.value, best.value, smallest, fpr95)
        return estimates

    def samples(
        self,
        folds: Sequence[FoldScores],
        targets: Targets,
        settings: EvaluationSettings,
    ) -> BootstrapSamples:
        """Return AUROC in every fold and resample, see `Task`."""
        # the other measures would be computed in every resample for nothing
        return bootstrap_auroc(folds, settings.replicates, settings.seed)
