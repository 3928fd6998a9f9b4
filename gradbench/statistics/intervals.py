"""What the folds of a detector measure, each number with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradbench.statistics.curve import MEASURES
from gradbench.statistics.exact_intervals import Exact, Measured
from gradbench.statistics.per_fold import MISSING, evaluate, thresholds_of
from gradbench.statistics.resampling import FoldScores, Sources

__all__ = ["FoldScores", "Measured", "measure"]


def measure(
    folds: Sequence[FoldScores],
    replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    repeats: int = 1,
) -> list[Measured]:
    """Measure everything in `curve.MEASURES` on the folds of one detector.

    A value is the mean of the values of the folds: scores of different folds come from differently
    fitted detectors and are never pooled. The interval is the percentile bootstrap over sources
    (`Sources.resample`), always wide enough to hold the value. It speaks of other images for the
    same fitted detectors, not of other fits.

    - Best threshold: as the largest of many accuracies it is optimistic, and more so in resamples,
      so the interval also covers the percentiles mirrored at the value. It stays optimistic with
      few images (about 9 of 10 intervals hold the truth at 1,000 + 1,000 images, 4 of 5 at
      200 + 200); the accuracy at a threshold from *choose* has no such fault.
    - AUROC or accuracy at a given threshold of at least 0.995: lo is the lower of bootstrap and
      exact one-sided bound (`exact.disjoint_pairs`, `exact.accuracy_bounds`), hi is 1.
    - Other measures at their best possible value in every resample: the exact bound of AUROC,
      carried over by the inequalities of `bounds` (best threshold: that of the accuracy at the
      threshold from *choose*, where there is one); elsewhere equal resamples give no interval.
    - Fewer than 25 sources on a side of a fold: the interval also covers the exact bounds.

    Args:
        folds: scores of every fold.
        replicates: resamples.
        confidence: of the interval.
        seed: of the resamples and pairs.
        repeats: how often the folds measure every image; it counts once, and is drawn with all of
            its scores.

    Returns:
        One `Measured` for each of `curve.MEASURES`, in that order; a hole with its reason in the
        note where a threshold is missing.

    Raises:
        GradbenchError: if a fold has an empty side or a score is not a number.
    """
    sources = Sources(folds)
    thresholds = thresholds_of(folds)
    wanted = [what for what in MEASURES if thresholds.get(what.threshold_rule, True) is not None]
    per_fold, samples = evaluate(folds, sources, wanted, thresholds, replicates, seed)
    counts = _counts(sources, repeats)
    exact = Exact(folds, sources, thresholds, 1 - confidence, seed)
    results = []
    for what in MEASURES:
        if what not in per_fold:
            note = f"not measured: {MISSING[what.threshold_rule]}"
            results.append(Measured(*what, np.nan, np.nan, np.nan, (), *counts, note))
            continue
        value, lo, hi = _interval(per_fold[what], samples[what], confidence)
        if what.threshold_rule == "best":
            lo, hi = max(0.5, min(lo, 2 * value - hi)), min(1.0, max(hi, 2 * value - lo))
        folded = tuple(map(float, per_fold[what]))
        results.append(exact.widen(Measured(*what, value, lo, hi, folded, *counts)))
    return results


def _interval(
    per_fold: np.ndarray, sample: np.ndarray, confidence: float
) -> tuple[float, float, float]:
    """Return value, lo and hi of the percentile bootstrap, wide enough to hold the value."""
    value = float(per_fold.mean())
    lo, hi = np.quantile(sample, [(1 - confidence) / 2, (1 + confidence) / 2])
    # Means of equal numbers may differ in the last bit; that is no interval.
    if hi - lo < 1e-12 and abs(value - lo) < 1e-12:
        return value, value, value
    return value, min(float(lo), value), max(float(hi), value)


def _counts(sources: Sources, repeats: int) -> tuple[int, int]:
    return tuple(sum(map(len, side)) // repeats for side in (sources.normal, sources.abnormal))
