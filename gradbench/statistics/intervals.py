"""Detection metrics of one detector over its folds, each number with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from gradbench.statistics.bootstrap import FoldScores, Sources, bootstrap_folds, both_sides
from gradbench.statistics.exact_bounds import (
    DisjointPairs,
    accuracy_bounds,
    accuracy_from_auroc,
    aupr_from_auroc,
    disjoint_pairs,
    fpr95_from_auroc,
)
from gradbench.statistics.metrics import MEASURES, SLACK, best_threshold

NEAR = 0.995
"""From here on an exact lower bound stands beside the bootstrap."""
FEW = 25
"""With fewer sources than this on a side of a fold, exact bounds stand beside the bootstrap."""
MISSING = {
    "choose": "no images of both sides to choose the threshold on",
    "half": "the detector names no score at which it says 0.5",
}
"""The reason why a threshold rule gives no threshold."""


@dataclass(frozen=True)
class MetricEstimate:
    """One measured number with its interval, as fractions in [0, 1]; NaN where there is none.

    The value is the mean over folds; the counts are those of the measured images over all folds.
    `metric`, `side` (the positive class of aupr, the side of the 95 % of fpr95) and
    `threshold_rule` (best of the measured images, from *choose*, or half) are those of
    `metrics.MEASURES`. The note says how the interval was made where it is not the bootstrap alone,
    or why there is none.
    """

    metric: str
    side: str
    threshold_rule: str
    value: float
    lo: float
    hi: float
    per_fold: tuple[float, ...]
    n_normal: int
    n_abnormal: int
    note: str = ""


def measure_detection(
    folds: Sequence[FoldScores],
    replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    repeats: int = 1,
) -> list[MetricEstimate]:
    """Measure everything in `metrics.MEASURES` on the folds of one detector.

    A value is the mean of the values of the folds: scores of different folds come from differently
    fitted detectors and are never pooled. The interval is the percentile bootstrap over sources
    (`Sources.resample`), always wide enough to hold the value. It speaks of other images for the
    same fitted detectors, not of other fits.

    - Best threshold: as the largest of many accuracies it is optimistic, and more so in resamples,
      so the interval also covers the percentiles mirrored at the value. It stays optimistic with
      few images (about 9 of 10 intervals hold the truth at 1,000 + 1,000 images, 4 of 5 at
      200 + 200); the accuracy at a threshold from *choose* has no such fault.
    - AUROC or accuracy at a given threshold of at least 0.995: lo is the lower of bootstrap and
      exact one-sided bound (`disjoint_pairs`, `accuracy_bounds`), hi is 1.
    - Other measures at their best possible value in every resample: the exact bound of AUROC,
      carried over by inequalities (best threshold: that of the accuracy at the threshold from
      *choose*, where there is one); elsewhere equal resamples give no interval.
    - Fewer than 25 sources on a side of a fold: the interval also covers the exact bounds.

    `repeats` says how often the folds measure every image: it counts once, and is drawn with all of
    its scores.

    Returns:
        One `MetricEstimate` for each of `metrics.MEASURES`, in that order; a hole with its reason
        in the note where a threshold is missing.

    Raises:
        GradbenchError: if a fold has an empty side or a score is not a number.
    """
    sources = Sources(folds)
    thresholds = _thresholds(folds)
    wanted = [
        measure for measure in MEASURES if thresholds.get(measure.threshold_rule, True) is not None
    ]
    samples = bootstrap_folds(folds, sources, wanted, thresholds, replicates, seed)
    counts = [sum(map(len, side)) // repeats for side in (sources.normal, sources.abnormal)]
    exact = _ExactBounds(folds, sources, thresholds, 1 - confidence, seed)
    results = []
    for measure in MEASURES:
        if measure not in samples:
            note = f"not measured: {MISSING[measure.threshold_rule]}"
            results.append(MetricEstimate(*measure, np.nan, np.nan, np.nan, (), *counts, note))
            continue
        value, (lo, hi) = samples[measure].value, samples[measure].interval(confidence)
        if measure.threshold_rule == "best":
            lo, hi = max(0.5, min(lo, 2 * value - hi)), min(1.0, max(hi, 2 * value - lo))
        per_fold = tuple(map(float, samples[measure].per_fold))
        results.append(exact.widen(MetricEstimate(*measure, value, lo, hi, per_fold, *counts)))
    return results


def _thresholds(folds: Sequence[FoldScores]) -> Mapping[str, Sequence[float] | None]:
    """Return, by rule, the thresholds that are fixed before the measured images are looked at."""
    choose, half = None, None
    if all(len(fold.choose_normal) and len(fold.choose_abnormal) for fold in folds):
        choose = [best_threshold(*both_sides(f.choose_normal, f.choose_abnormal)) for f in folds]
    if all(fold.half is not None for fold in folds):
        half = [float(fold.half) for fold in folds]
    return {"choose": choose, "half": half}


class _ExactBounds:
    """Widens bootstrap intervals by exact bounds where the bootstrap cannot be trusted."""

    def __init__(self, folds, sources: Sources, thresholds, alpha: float, seed: int):
        self.folds, self.sources, self.thresholds = folds, sources, thresholds
        self.alpha, self.seed = alpha, seed
        self.few = min(len(np.unique(m)) for m in sources.normal + sources.abnormal) < FEW

    @cached_property
    def pairs(self) -> DisjointPairs:
        """Disjoint pairs of all folds, made when first needed."""
        return disjoint_pairs(self.folds, self.sources, self.seed)

    def widen(self, result: MetricEstimate) -> MetricEstimate:
        """Return the result with the interval that `measure_detection` describes."""
        flat = result.lo == result.hi
        if result.metric == "auroc" or result.threshold_rule in self.thresholds:
            return self._two_sided(result, flat)
        best = 0.0 if result.metric == "fpr95" else 1.0
        if not flat and not self.few:
            return result
        if flat and abs(result.value - best) > SLACK:
            note = "no interval: the resamples do not differ"
            return replace(result, lo=np.nan, hi=np.nan, note=note)
        bound, basis = self._carried(result, self.alpha if flat else self.alpha / 2)
        return replace(
            result,
            lo=min(result.lo, bound),
            hi=max(result.hi, bound),
            note=f"exact bound carried over from {basis}",
        )

    def _two_sided(self, result: MetricEstimate, flat: bool) -> MetricEstimate:
        """Widen AUROC or an accuracy at fixed thresholds, which have exact bounds of their own."""
        near = result.value >= NEAR
        if not (near or flat or self.few):
            return result
        alpha = self.alpha if near else self.alpha / 2
        if result.metric == "auroc":
            low, high = self.pairs.lower(alpha), self.pairs.upper(alpha)
            basis = f"{self.pairs.count} disjoint pairs"
        else:
            fixed = self.thresholds[result.threshold_rule]
            low, high = accuracy_bounds(self.folds, self.sources, fixed, alpha)
            basis = "the counts of both sides"
        return replace(
            result,
            lo=min(result.lo, low),
            hi=1.0 if near else max(result.hi, high),
            note=f"exact {'one-sided lower bound' if near else 'bounds'} from {basis}",
        )

    def _carried(self, result: MetricEstimate, alpha: float) -> tuple[float, str]:
        """Return the bound that the exact bounds of other measures imply, and which they are."""
        choose = self.thresholds["choose"]
        if result.metric == "detection_accuracy" and choose:
            # No fixed threshold beats the best one.
            low, _ = accuracy_bounds(self.folds, self.sources, choose, alpha)
            return low, "the accuracy at the threshold from choose"
        auroc = self.pairs.lower(alpha)
        basis = f"the AUROC of {self.pairs.count} disjoint pairs"
        if result.metric == "fpr95":
            return fpr95_from_auroc(auroc), basis
        if result.metric == "detection_accuracy":
            return accuracy_from_auroc(auroc), basis
        positive = result.n_normal if result.side == "in" else result.n_abnormal
        share = positive / (result.n_normal + result.n_abnormal)
        share = 0.5 if result.metric == "aupr_balanced" else share
        return aupr_from_auroc(auroc, share), basis
