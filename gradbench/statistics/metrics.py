"""What scores are worth: AUROC, AUPR, detection accuracy and FPR95, weighted and with ties.

Everywhere: scores (n,), higher = more abnormal; abnormal (n,) bool; weights (n,) non-negative,
one each by default; results are fractions in [0, 1]. A score that is not a number and a side
without an image (or without weight) raise GradbenchError. `curve.Weighted` gives the same for
many weightings at once.
"""

from __future__ import annotations

import numpy as np

from gradbench.errors import GradbenchError
from gradbench.statistics.curve import SLACK, Curve, Weighted


def auroc(scores: np.ndarray, abnormal: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return P(abnormal score > normal score) + P(equal) / 2."""
    return float(_curve(scores, abnormal, weights).auroc()[0])


def aupr(
    scores: np.ndarray, abnormal: np.ndarray, side: str, weights: np.ndarray | None = None
) -> float:
    """Return the area under precision and recall, as average precision.

    Args:
        scores: higher = more abnormal.
        abnormal: True for abnormal.
        side: the positive class: `in` (normal, found by low scores) or `out` (abnormal).
        weights: of the images.

    Differs from the paper: the reference code integrates by trapezoid and starts at precision 0.5.
    """
    return float(_curve(scores, abnormal, weights).aupr(side)[0])


def aupr_balanced(
    scores: np.ndarray, abnormal: np.ndarray, side: str, weights: np.ndarray | None = None
) -> float:
    """Return `aupr` with the classes brought to equal total weight."""
    return float(_curve(scores, abnormal, weights).aupr(side, balanced=True)[0])


def detection_accuracy_best(
    scores: np.ndarray, abnormal: np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Return the largest (TPR + TNR) / 2 over thresholds of these very images."""
    return float(_curve(scores, abnormal, weights).accuracy_best()[0])


def detection_accuracy_at(
    scores: np.ndarray,
    abnormal: np.ndarray,
    threshold: float,
    weights: np.ndarray | None = None,
) -> float:
    """Return (TPR + TNR) / 2 where images with a score above the threshold are called abnormal."""
    return float(_curve(scores, abnormal, weights).accuracy_at(threshold)[0])


def best_threshold(scores: np.ndarray, abnormal: np.ndarray) -> float:
    """Return the threshold of the largest (TPR + TNR) / 2, to be used on other images.

    Half-way between two neighbouring scores; the lowest where several are best; -inf where
    nothing beats calling every image abnormal.
    """
    curve = _curve(scores, abnormal, None)
    gain = (curve.normal_below - curve.abnormal_below)[0]
    best = int(np.argmax(gain >= gain.max() - SLACK))
    if gain.max() <= SLACK:
        return -np.inf
    low, high = (float(value) for value in curve.values[best : best + 2])
    middle = low / 2 + high / 2
    return middle if low <= middle < high else low


def fpr95(
    scores: np.ndarray, abnormal: np.ndarray, side: str, weights: np.ndarray | None = None
) -> float:
    """Return the false positive rate where 95 % of one side are recognised.

    Args:
        scores: higher = more abnormal.
        abnormal: True for abnormal.
        side: the side of the 95 %. `normal`: an image is accepted when its score is at most t; t is
            the smallest score at which at least 95 % of the normal images are accepted; returned is
            the share of abnormal images accepted (Mahalanobis and ODIN; TPR on normal).
            `abnormal`: an image is flagged when its score is at least t; t is the largest score at
            which at least 95 % of the abnormal images are flagged; returned is the share of normal
            images flagged. Images tied with t are all accepted, or all flagged.
        weights: of the images.

    Differs from the paper: the reference takes the point *nearest* to 95 %, here it is at least.
    """
    return float(_curve(scores, abnormal, weights).fpr95(side)[0])


def _curve(scores: np.ndarray, abnormal: np.ndarray, weights: np.ndarray | None) -> Curve:
    """Return the curve of one weighting, both sides of which weigh something."""
    abnormal = np.asarray(abnormal, dtype=bool)
    if weights is not None:
        weights = np.asarray(weights, dtype=np.float64)
        if not (weights >= 0).all():
            raise GradbenchError("weights of images must be numbers of at least 0")
        for side, chosen in (("normal", ~abnormal), ("abnormal", abnormal)):
            if not weights[chosen].any():
                raise GradbenchError(f"no {side} image has a weight above 0")
        weights = weights[None]
    return Weighted(scores, abnormal).curve(weights)
