"""Scores sorted once and measured under many weightings."""

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


class Weighted:
    """Scores sorted once and measured under any number of weightings.

    Raises:
        GradbenchError: if a score is not a number or a side has no image.
    """

    def __init__(self, scores: np.ndarray, abnormal: np.ndarray):
        scores = np.asarray(scores, dtype=np.float64)
        abnormal = np.asarray(abnormal, dtype=bool)
        if scores.ndim != 1 or scores.shape != abnormal.shape:
            raise ValueError(f"scores {scores.shape} and abnormal {abnormal.shape} must be (n,)")
        missing = int(np.isnan(scores).sum())
        if missing:
            raise GradbenchError(f"{missing} of {len(scores)} scores are not numbers (NaN)")
        if not abnormal.any() or abnormal.all():
            side = "normal" if abnormal.all() else "abnormal"
            raise GradbenchError(f"no {side} image among the {len(scores)} to be measured")
        self.order = np.argsort(scores, kind="stable")
        self.values, self._starts = np.unique(scores[self.order], return_index=True)
        self._abnormal = abnormal[self.order]

    def curve(self, weights: np.ndarray | None = None) -> Curve:
        """Return the cumulated weights, for weights of shape (R, n), in the order of the scores."""
        if weights is None:
            weights = np.ones((1, len(self.order)))
        weights = weights[:, self.order]
        normal, abnormal = weights * ~self._abnormal, weights * self._abnormal
        if len(self.values) < len(self.order):
            normal = np.add.reduceat(normal, self._starts, axis=1)
            abnormal = np.add.reduceat(abnormal, self._starts, axis=1)
        return Curve(self.values, normal, abnormal)


class Curve:
    """R weightings of one set of scores; methods give (R,), NaN where a side weighs nothing.

    Args:
        values: (K,) distinct scores, ascending.
        normal: (R, K) weight of the normal images with each score.
        abnormal: (R, K) weight of the abnormal images with each score.
    """

    def __init__(self, values: np.ndarray, normal: np.ndarray, abnormal: np.ndarray):
        self.values, self._normal, self._abnormal = values, normal, abnormal

    @cached_property
    def normal_below(self) -> np.ndarray:
        """(R, K) share of the normal weight at most at each score."""
        return _shares(self._normal)

    @cached_property
    def abnormal_below(self) -> np.ndarray:
        """(R, K) share of the abnormal weight at most at each score."""
        return _shares(self._abnormal)

    def auroc(self) -> np.ndarray:
        """See `metrics.auroc`."""
        below = self.normal_below
        lost = np.einsum("rk,rk->r", self._abnormal, self._normal) / 2
        with np.errstate(invalid="ignore"):
            won = np.einsum("rk,rk->r", self._abnormal, below)
            return (won - lost / self._normal.sum(axis=1)) / self._abnormal.sum(axis=1)

    def aupr(self, side: str, balanced: bool = False) -> np.ndarray:
        """See `metrics.aupr` and `metrics.aupr_balanced`."""
        if side == "in":
            found, wrong = self.normal_below, self.abnormal_below
            weights, others = self._normal, self._abnormal
        elif side == "out":
            found, wrong = self._abnormal_above, self._normal_above
            weights, others = self._abnormal[:, ::-1], self._normal[:, ::-1]
        else:
            raise ValueError(f"side='{side}': choose in or out")
        total = weights.sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = 1.0 if balanced else others.sum(axis=1, keepdims=True) / total
            # The tiny number turns 0/0, which only stands at weightless scores, into 0.
            precision = found / (found + wrong * ratio + 1e-300)
            return np.einsum("rk,rk->r", weights, precision) / total[:, 0]

    def accuracy_best(self) -> np.ndarray:
        """See `metrics.detection_accuracy_best`."""
        return (1 + (self.normal_below - self.abnormal_below).max(axis=1)) / 2

    def accuracy_at(self, threshold: float) -> np.ndarray:
        """See `metrics.detection_accuracy_at`."""
        last = int(np.searchsorted(self.values, threshold, side="right")) - 1
        if last < 0:
            return (1 + 0 * self.normal_below[:, -1] * self.abnormal_below[:, -1]) / 2
        return (1 + self.normal_below[:, last] - self.abnormal_below[:, last]) / 2

    def fpr95(self, side: str) -> np.ndarray:
        """See `metrics.fpr95`."""
        if side == "normal":
            reached, share = self.normal_below, self.abnormal_below
        elif side == "abnormal":
            reached, share = self._abnormal_above, self._normal_above
        else:
            raise ValueError(f"side='{side}': choose normal or abnormal")
        first = np.argmax(reached >= 0.95 - SLACK, axis=1)
        # The last share is 1, or NaN on a side without weight.
        return np.take_along_axis(share, first[:, None], axis=1)[:, 0] * reached[:, -1]

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
