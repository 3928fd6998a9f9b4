"""Every measure in every fold and every resample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gradbench.statistics.curve import Measure, Weighted
from gradbench.statistics.metrics import best_threshold
from gradbench.statistics.resampling import FoldScores, Sources

MISSING = {
    "choose": "no images of both sides to choose the threshold on",
    "half": "the detector names no score at which it says 0.5",
}
"""Why a threshold rule gives no threshold."""

Thresholds = Mapping[str, Sequence[float] | None]
"""For each rule of `MISSING` the threshold of every fold, or None."""


def thresholds_of(folds: Sequence[FoldScores]) -> Thresholds:
    """Return the thresholds that are fixed before the measured images are looked at."""
    choose, half = None, None
    if all(len(fold.choose_normal) and len(fold.choose_abnormal) for fold in folds):
        choose = [best_threshold(*_both(f.choose_normal, f.choose_abnormal)) for f in folds]
    if all(fold.half is not None for fold in folds):
        half = [float(fold.half) for fold in folds]
    return {"choose": choose, "half": half}


def evaluate(
    folds: Sequence[FoldScores],
    sources: Sources,
    wanted: Sequence[Measure],
    thresholds: Thresholds,
    replicates: int,
    seed: int,
) -> tuple[dict[Measure, np.ndarray], dict[Measure, np.ndarray]]:
    """Return for each measure its value in every fold (F,) and its mean in every resample (R,).

    Raises:
        GradbenchError: if a score is not a number.
    """
    sorted_folds = [Weighted(*_both(fold.normal, fold.abnormal)) for fold in folds]

    def values(weights: Sequence[np.ndarray | None]) -> dict[Measure, np.ndarray]:
        found: dict[Measure, list[np.ndarray]] = {what: [] for what in wanted}
        for number, (scores, weight) in enumerate(zip(sorted_folds, weights)):
            curve = scores.curve(weight)
            for what in wanted:
                given = thresholds.get(what.threshold_rule)
                found[what].append(curve.value(what, given[number] if given else None))
        return {what: np.stack(parts) for what, parts in found.items()}

    per_fold = {what: parts[:, 0] for what, parts in values([None] * len(folds)).items()}
    samples = {what: np.empty(replicates) for what in wanted}
    for rows, weights in sources.resample(replicates, seed):
        chunk = values([np.concatenate(sides, axis=1) for sides in weights])
        for what, parts in chunk.items():
            samples[what][rows] = parts.mean(axis=0)
    return per_fold, samples


def _both(normal: np.ndarray, abnormal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of both sides and which are abnormal."""
    scores = np.concatenate([normal, abnormal])
    return scores, np.arange(len(scores)) >= len(normal)
