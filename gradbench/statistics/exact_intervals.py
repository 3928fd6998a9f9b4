"""Bootstrap intervals widened by exact bounds where the bootstrap cannot be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from gradbench.statistics import bounds
from gradbench.statistics.curve import SLACK
from gradbench.statistics.exact import Pairs, accuracy_bounds, disjoint_pairs
from gradbench.statistics.per_fold import Thresholds
from gradbench.statistics.resampling import FoldScores, Sources

NEAR = 0.995
"""From here on an exact lower bound stands beside the bootstrap."""
FEW = 25
"""With fewer sources than this on a side of a fold, exact bounds stand beside the bootstrap."""


@dataclass(frozen=True)
class Measured:
    """One measured number, as fractions in [0, 1]; NaN where there is none.

    Attributes:
        metric: with `side` and `threshold_rule` as in `curve.MEASURES`.
        side: the positive class of aupr (in, out), the side of the 95 % of fpr95.
        threshold_rule: best (of the measured images), choose (from *choose*) or half.
        value: mean over folds.
        lo: lower end of the interval.
        hi: upper end of the interval.
        per_fold: value of each fold.
        n_normal: normal images measured, over all folds.
        n_abnormal: abnormal images measured, over all folds.
        note: how the interval was made where it is not the bootstrap alone, or why there is none.
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


def without_interval(result: Measured) -> Measured:
    """Return the result with no ends, for equal resamples say nothing of the spread."""
    return replace(result, lo=np.nan, hi=np.nan, note="no interval: the resamples do not differ")


class Exact:
    """Widens bootstrap intervals by exact bounds where the bootstrap cannot be trusted."""

    def __init__(
        self,
        folds: Sequence[FoldScores],
        sources: Sources,
        thresholds: Thresholds,
        alpha: float,
        seed: int,
    ):
        self.folds, self.sources, self.thresholds = folds, sources, thresholds
        self.alpha, self.seed = alpha, seed
        self.few = min(len(np.unique(m)) for m in sources.normal + sources.abnormal) < FEW

    @cached_property
    def pairs(self) -> Pairs:
        """Disjoint pairs of all folds, made when first needed."""
        return disjoint_pairs(self.folds, self.sources, self.seed)

    def widen(self, result: Measured) -> Measured:
        """Return the result with the interval that `measure` describes."""
        flat = result.lo == result.hi
        if result.metric == "auroc":
            return self._two_sided(result, flat, "AUROC")
        if result.threshold_rule in self.thresholds:
            return self._two_sided(result, flat, "accuracy")
        best = 0.0 if result.metric == "fpr95" else 1.0
        if not flat and not self.few:
            return result
        if flat and abs(result.value - best) > SLACK:
            return without_interval(result)
        bound, basis = self._carried(result, self.alpha if flat else self.alpha / 2)
        return replace(
            result,
            lo=min(result.lo, bound),
            hi=max(result.hi, bound),
            note=f"exact bound carried over from {basis}",
        )

    def _two_sided(self, result: Measured, flat: bool, kind: str) -> Measured:
        """Widen a result that has exact bounds of its own."""
        near = result.value >= NEAR
        if not (near or flat or self.few):
            return result
        alpha = self.alpha if near else self.alpha / 2
        if kind == "AUROC":
            low, high = self.pairs.lower(alpha), self.pairs.upper(alpha)
            basis = f"{self.pairs.count} disjoint pairs"
        else:
            given = self.thresholds[result.threshold_rule]
            low, high = accuracy_bounds(self.folds, self.sources, given, alpha)
            basis = "the counts of both sides"
        return replace(
            result,
            lo=min(result.lo, low),
            hi=1.0 if near else max(result.hi, high),
            note=f"exact {'one-sided lower bound' if near else 'bounds'} from {basis}",
        )

    def _carried(self, result: Measured, alpha: float) -> tuple[float, str]:
        """Return what the exact bounds of other measures say of this one, and which they are."""
        if result.metric == "detection_accuracy" and self.thresholds["choose"]:
            # No given threshold beats the best one.
            given = self.thresholds["choose"]
            low, _ = accuracy_bounds(self.folds, self.sources, given, alpha)
            return low, "the accuracy at the threshold from choose"
        auroc = self.pairs.lower(alpha)
        basis = f"the AUROC of {self.pairs.count} disjoint pairs"
        if result.metric == "fpr95":
            return bounds.fpr95_from_auroc(auroc), basis
        if result.metric == "detection_accuracy":
            return bounds.accuracy_from_auroc(auroc), basis
        positive = result.n_normal if result.side == "in" else result.n_abnormal
        share = positive / (result.n_normal + result.n_abnormal)
        share = 0.5 if result.metric == "aupr_balanced" else share
        return bounds.aupr_from_auroc(auroc, share), basis
