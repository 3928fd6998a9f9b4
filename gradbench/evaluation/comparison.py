"""Whether one detector is better than another, on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import norm, rankdata, t

from gradbench.errors import GradbenchError
from gradbench.evaluation.controls import holm

LEVEL = 0.05
"""One detector is better than another where p, after Holm within a table, is below this."""


class DeLong(NamedTuple):
    """Two AUROCs on the same images, after DeLong et al. (1988).

    Attributes:
        a: AUROC of detector a.
        b: AUROC of detector b.
        covariance: (2, 2) of both.
        p: two-sided, that they are equal.
    """

    a: float
    b: float
    covariance: np.ndarray
    p: float


def delong(scores_a: np.ndarray, scores_b: np.ndarray, abnormal: np.ndarray) -> DeLong:
    """Compare two AUROCs on images none of which shares its source with another.

    DeLong, DeLong and Clarke-Pearson (1988), Biometrics 44: the covariance of the placements, here
    from midranks (Sun and Xu 2014, IEEE Signal Processing Letters 21), ties counting one half.

    Args:
        scores_a: (n,) scores of detector a.
        scores_b: (n,) of detector b for the same images.
        abnormal: (n,) bool, at least two images of each side.

    Raises:
        GradbenchError: if a side has fewer than two images.
    """
    abnormal = np.asarray(abnormal, dtype=bool)
    m, n = int(abnormal.sum()), int((~abnormal).sum())
    if min(m, n) < 2:
        raise GradbenchError(f"DeLong's test needs 2 images of each side, and there are {n} + {m}")
    of_abnormal, of_normal = [], []
    for scores in (np.asarray(scores_a), np.asarray(scores_b)):
        ranks = rankdata(scores)
        of_abnormal.append((ranks[abnormal] - rankdata(scores[abnormal])) / n)
        of_normal.append(1 - (ranks[~abnormal] - rankdata(scores[~abnormal])) / m)
    covariance = np.cov(of_abnormal) / m + np.cov(of_normal) / n
    a, b = (float(np.mean(placed)) for placed in of_abnormal)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    return DeLong(a, b, covariance, normal_p(a - b, max(variance, 0) ** 0.5))


def normal_p(difference: float, deviation: float) -> float:
    """Return the two-sided p that a difference with this standard deviation is zero."""
    if abs(difference) < 1e-12:
        return 1.0
    return float(2 * norm.sf(abs(difference) / deviation)) if deviation > 1e-12 else 0.0


def corrected_t_p(differences: np.ndarray, ratio: float) -> float:
    """Return the two-sided p of the corrected repeated k-fold paired t-test.

    t = mean / sqrt((1 / J + ratio) * variance) with J - 1 degrees of freedom: the folds share the
    images that they were fitted on, so their differences vary together (Nadeau and Bengio 2003,
    Machine Learning 52, equation 9; for repeated folds Bouckaert and Frank 2004).

    Args:
        differences: (J,) of two detectors in the folds of all repetitions.
        ratio: images measured by those fitted on and chosen with, 1 / (k - 1) for k folds.

    Raises:
        GradbenchError: for fewer than two differences.
    """
    d = np.asarray(differences, dtype=np.float64)
    if len(d) < 2:
        raise GradbenchError(f"a t-test over folds needs at least 2 folds, and there is {len(d)}")
    deviation = np.sqrt((1 / len(d) + ratio) * d.var(ddof=1))
    if abs(d.mean()) < 1e-12:
        return 1.0
    return float(2 * t.sf(abs(d.mean()) / deviation, len(d) - 1)) if deviation > 1e-12 else 0.0


def holm_pairs(tables: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Correct the p-values of all pairs in all rows of a table for their number, by Holm.

    All pairs count, though a table shows only those with the best: which one is the best is known
    from the same numbers. Counting only those that are shown, some of ten equal detectors would be
    called worse than the best of them in more than 10 % of all tables.

    Args:
        tables: (m, m) symmetric p-values of the m detectors in each row of a table.

    Returns:
        The same after correction, 1 on the diagonal.
    """
    corners = [np.triu_indices(len(table), 1) for table in tables]
    flat = holm(np.concatenate([table[c] for table, c in zip(tables, corners)]))
    found = []
    for table, corner in zip(tables, corners):
        whole = np.ones_like(table, dtype=np.float64)
        own, flat = flat[: len(corner[0])], flat[len(corner[0]) :]
        whole[corner] = own
        whole[corner[::-1]] = own
        found.append(whole)
    return found
