"""Detection metrics of scores: AUROC, AUPR, detection accuracy and FPR95, weighted and with ties.

Everywhere: scores (n,), higher = more abnormal; abnormal (n,) bool; results are fractions in
[0, 1]. `SortedScores` sorts once; `Curve` measures any number of weightings of the images at once,
as the bootstrap needs it.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np

from gradbench.errors import GradbenchError

SLACK = 1e-9
"""Sums of weights that ought to be equal differ by less than this share."""


class Measure(NamedTuple):
    """A measured quantity, by the names it has in the rows."""

    metric: str
    side: str = ""
    threshold_rule: str = ""


MEASURES = (
    Measure("auroc"),
    Measure("aupr", "in"),
    Measure("aupr", "out"),
    Measure("aupr_balanced", "in"),
    Measure("aupr_balanced", "out"),
    Measure("detection_accuracy", "", "best"),
    Measure("detection_accuracy", "", "choose"),
    Measure("detection_accuracy", "", "half"),
    Measure("fpr95", "normal"),
    Measure("fpr95", "abnormal"),
)


def auroc(scores: np.ndarray, abnormal: np.ndarray) -> float:
    """Return P(abnormal score > normal score) + P(equal) / 2.

    Raises:
        GradbenchError: if a score is not a number or a side has no image.
    """
    return float(SortedScores(scores, abnormal).curve().auroc()[0])


def best_threshold(scores: np.ndarray, abnormal: np.ndarray) -> float:
    """Return the threshold of the largest (TPR + TNR) / 2, to be used on other images.

    Half-way between two neighbouring scores; the lowest where several are best; -inf where
    nothing beats calling every image abnormal.

    Raises:
        GradbenchError: if a score is not a number or a side has no image.
    """
    curve = SortedScores(scores, abnormal).curve()
    gain = (curve.normal_below - curve.abnormal_below)[0]
    best = int(np.argmax(gain >= gain.max() - SLACK))
    if gain.max() <= SLACK:
        return -np.inf
    low, high = (float(value) for value in curve.values[best : best + 2])
    middle = low / 2 + high / 2
    # Between neighbouring floats the mean may round up to the higher one, which is abnormal.
    return middle if low <= middle < high else low


class SortedScores:
    """Scores sorted once, to be measured under any number of weightings.

    Raises:
        GradbenchError: if a score is not a number or a side has no image.
    """

    def __init__(self, scores: np.ndarray, abnormal: np.ndarray):
        scores = np.asarray(scores, dtype=np.float64)
        abnormal = np.asarray(abnormal, dtype=bool)
        missing = int(np.isnan(scores).sum())
        if missing:
            raise GradbenchError(f"{missing} of {len(scores)} scores are not numbers (NaN)")
        if not abnormal.any() or abnormal.all():
            side = "normal" if abnormal.all() else "abnormal"
            raise GradbenchError(f"no {side} image among the {len(scores)} to be measured")
        self._order = np.argsort(scores, kind="stable")
        self._values, self._starts = np.unique(scores[self._order], return_index=True)
        self._abnormal = abnormal[self._order]

    def curve(self, weights: np.ndarray | None = None) -> Curve:
        """Return the curve of weights (R, n) of the images, one each by default (R = 1)."""
        if weights is None:
            weights = np.ones((1, len(self._order)))
        weights = weights[:, self._order]
        normal, abnormal = weights * ~self._abnormal, weights * self._abnormal
        if len(self._values) < len(self._order):  # tied scores pass a threshold together
            normal = np.add.reduceat(normal, self._starts, axis=1)
            abnormal = np.add.reduceat(abnormal, self._starts, axis=1)
        return Curve(self._values, normal, abnormal)


class Curve:
    """R weightings of one set of scores; methods give (R,), NaN where a side weighs nothing.

    `values` (K,) are the distinct scores, ascending; `normal` and `abnormal` (R, K) the weights of
    the images with each of them.
    """

    def __init__(self, values: np.ndarray, normal: np.ndarray, abnormal: np.ndarray):
        self.values, self._normal, self._abnormal = values, normal, abnormal

    def value(self, measure: Measure, threshold: float | None = None) -> np.ndarray:
        """Return one of `MEASURES`; `threshold` where its rule is not `best`."""
        metric, side, rule = measure
        if metric == "auroc":
            return self.auroc()
        if metric in ("aupr", "aupr_balanced"):
            return self.aupr(side, balanced=metric == "aupr_balanced")
        if metric == "fpr95":
            return self.fpr95(side)
        return self.accuracy_best() if rule == "best" else self.accuracy_at(threshold)

    def auroc(self) -> np.ndarray:
        """Return P(abnormal score > normal score) + P(equal) / 2."""
        below = self.normal_below
        lost = np.einsum("rk,rk->r", self._abnormal, self._normal) / 2
        with np.errstate(invalid="ignore"):
            won = np.einsum("rk,rk->r", self._abnormal, below)
            return (won - lost / self._normal.sum(axis=1)) / self._abnormal.sum(axis=1)

    def aupr(self, side: str, balanced: bool = False) -> np.ndarray:
        """Return the area under precision and recall, as average precision.

        The positive class is `in` (normal, found by low scores) or `out` (abnormal); `balanced`
        brings both classes to equal total weight. Differs from the paper: the reference code
        integrates by trapezoid and starts at precision 0.5.
        """
        if side == "in":
            recall, wrong = self.normal_below, self.abnormal_below
            weights, others = self._normal, self._abnormal
        else:
            recall, wrong = self._abnormal_above, self._normal_above
            weights, others = self._abnormal[:, ::-1], self._normal[:, ::-1]
        total = weights.sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = 1.0 if balanced else others.sum(axis=1, keepdims=True) / total
            # The tiny number turns 0/0, which only stands at weightless scores, into 0.
            precision = recall / (recall + wrong * ratio + 1e-300)
            return np.einsum("rk,rk->r", weights, precision) / total[:, 0]

    def accuracy_best(self) -> np.ndarray:
        """Return the largest (TPR + TNR) / 2 over thresholds of these very images."""
        return (1 + (self.normal_below - self.abnormal_below).max(axis=1)) / 2

    def accuracy_at(self, threshold: float) -> np.ndarray:
        """Return (TPR + TNR) / 2 where images with a score above the threshold are abnormal."""
        last = int(np.searchsorted(self.values, threshold, side="right")) - 1
        if last < 0:  # all are called abnormal: one half, or NaN for a side without weight
            return (1 + 0 * self.normal_below[:, -1] * self.abnormal_below[:, -1]) / 2
        return (1 + self.normal_below[:, last] - self.abnormal_below[:, last]) / 2

    def fpr95(self, side: str) -> np.ndarray:
        """Return the false positive rate where 95 % of one side are recognised.

        `normal`: an image is accepted when its score is at most t, the smallest score at which at
        least 95 % of the normal images are; returned is the share of abnormal images accepted
        (Mahalanobis and ODIN; TPR on normal). `abnormal`: an image is flagged when its score is at
        least t, the largest score at which at least 95 % of the abnormal images are; returned is
        the share of normal images flagged. Images tied with t are all accepted, or flagged.
        Differs from the paper: the reference takes the point *nearest* to 95 %, here it is at
        least.
        """
        if side == "normal":
            reached, share = self.normal_below, self.abnormal_below
        else:
            reached, share = self._abnormal_above, self._normal_above
        first = np.argmax(reached >= 0.95 - SLACK, axis=1)
        # The last share is 1, or NaN on a side without weight.
        return np.take_along_axis(share, first[:, None], axis=1)[:, 0] * reached[:, -1]

    @cached_property
    def normal_below(self) -> np.ndarray:
        """(R, K) share of the normal weight at most at each score."""
        return _shares(self._normal)

    @cached_property
    def abnormal_below(self) -> np.ndarray:
        """(R, K) share of the abnormal weight at most at each score."""
        return _shares(self._abnormal)

    @cached_property
    def _normal_above(self) -> np.ndarray:
        """(R, K) share of the normal weight at least at each score, highest score first."""
        return _shares(self._normal[:, ::-1])

    @cached_property
    def _abnormal_above(self) -> np.ndarray:
        return _shares(self._abnormal[:, ::-1])


def _shares(weights: np.ndarray) -> np.ndarray:
    """Return cumulated weights as shares of the total."""
    sums = np.cumsum(weights, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.divide(sums, sums[:, -1:].copy(), out=sums)
