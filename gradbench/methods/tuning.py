"""Checks settings, and chooses them on the *choose* part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
from scipy.stats import rankdata
from torch import Tensor

from gradbench.errors import GradbenchError

Setting = TypeVar("Setting")


def rank_auroc(scores: np.ndarray, abnormal: np.ndarray) -> float:
    """Return P(abnormal > normal) + P(equal) / 2 of (N,) scores, fast enough for every epoch."""
    ranks = rankdata(scores)
    ones = int(abnormal.sum())
    pairs = ones * (len(scores) - ones)
    return float((ranks[abnormal].sum() - ones * (ones + 1) / 2) / pairs)


def tnr_at_95_tpr(scores: np.ndarray, abnormal: np.ndarray) -> float:
    """Return the share of abnormal images above the threshold that keeps 95 % of the normal ones.

    Normal images up to the threshold are kept, at least 95 % of them; abnormal ones above it are
    rejected. In the published codes this is "TNR at 95 % TPR", normal being positive.
    """
    normal = np.sort(scores[~abnormal])
    threshold = normal[int(np.ceil(0.95 * len(normal))) - 1]
    return float((scores[abnormal] > threshold).mean())


def best_setting(tried: Iterable[tuple[Setting, Tensor]], abnormal: Tensor) -> Setting:
    """Return the setting with the best TNR at 95 % TPR; of equals the best AUROC, then the first.

    `tried` are settings with the (N,) scores that they give.
    """
    labels = abnormal.numpy()

    def worth(pair: tuple[Setting, Tensor]) -> tuple[float, float]:
        scores = pair[1].numpy()
        return tnr_at_95_tpr(scores, labels), rank_auroc(scores, labels)

    return max(tried, key=worth)[0]


def check_numbers(
    setting: str, values: Sequence[float], positive: bool = False
) -> tuple[float, ...]:
    """Return the values of a setting as floats.

    Raises:
        GradbenchError: if there is none, or one is no number from 0, or above 0 if `positive`.
    """
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or not all(np.isfinite(v) and (v > 0 if positive else v >= 0) for v in numbers):
        raise GradbenchError(
            f"{setting}={values}: list one or more numbers {'above' if positive else 'from'} 0"
        )
    return numbers


def check_whole(setting: str, value: int, least: int = 1) -> int:
    """Return a setting that must be a whole number of at least `least`, or raise."""
    if type(value) is not int or value < least:
        raise GradbenchError(f"{setting}={value}: a whole number, at least {least}")
    return value
