"""Exact bounds from independent pairs, for detectors that hardly err and for few images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import beta

from gradbench.statistics.resampling import FoldScores, Sources


class Pairs(NamedTuple):
    """Disjoint pairs of a normal and an abnormal image.

    Attributes:
        count: pairs in all.
        won: pairs whose abnormal image has the higher score.
        lost: pairs whose abnormal image has the lower score; the rest are ties.
    """

    count: int
    won: int
    lost: int

    def lower(self, alpha: float) -> float:
        """Return the exact lower bound of AUROC at level `alpha`, ties counted as lost."""
        return binomial_lower(self.won, self.count, alpha)

    def upper(self, alpha: float) -> float:
        """Return the exact upper bound of AUROC at level `alpha`, ties counted as won."""
        return 1 - binomial_lower(self.lost, self.count, alpha)


def binomial_lower(successes: int, trials: int, alpha: float) -> float:
    """Return the one-sided lower bound of Clopper and Pearson (1934).

    It is 0 where no trial succeeds and alpha^(1 / trials) where all do.
    """
    if successes == 0:
        return 0.0
    return float(beta.ppf(alpha, successes, trials - successes + 1))


def disjoint_pairs(folds: Sequence[FoldScores], sources: Sources, seed: int) -> Pairs:
    """Pair normal with abnormal images within folds, so that no source is used twice.

    A source with both (twins) gives its normal image or its abnormal one, so that as many pairs as
    possible come about; of several images on a side it gives its first. Pairs of all folds are
    counted together. Who is paired with whom depends on the names of the sources and the seed,
    never on the scores.
    """
    used = np.zeros(len(sources.names), dtype=bool)
    shuffle = np.random.default_rng([seed, len(sources.names)])
    orders = shuffle.permutation(len(used)), shuffle.permutation(len(used))
    count = won = lost = 0
    for fold, of_normal, of_abnormal in zip(folds, sources.normal, sources.abnormal):
        normal, normal_rows = _first(of_normal, used)
        abnormal, abnormal_rows = _first(of_abnormal, used)
        twins = np.intersect1d(normal, abnormal)
        twins = twins[np.argsort(orders[0][twins])]
        # Twins go where images are wanting: len(normal) - len(abnormal) is that of the others.
        give = np.clip((len(abnormal) - len(normal) + len(twins) + 1) // 2, 0, len(twins))
        left = ~np.isin(normal, twins[give:])
        right = ~np.isin(abnormal, twins[:give])
        pairs = min(left.sum(), right.sum())
        left = np.flatnonzero(left)[np.argsort(orders[0][normal[left]])][:pairs]
        right = np.flatnonzero(right)[np.argsort(orders[1][abnormal[right]])][:pairs]
        used[normal[left]] = used[abnormal[right]] = True
        low = np.asarray(fold.normal)[normal_rows[left]]
        high = np.asarray(fold.abnormal)[abnormal_rows[right]]
        count, won, lost = count + pairs, won + (high > low).sum(), lost + (high < low).sum()
    return Pairs(int(count), int(won), int(lost))


def accuracy_bounds(
    folds: Sequence[FoldScores], sources: Sources, thresholds: Sequence[float], alpha: float
) -> tuple[float, float]:
    """Return exact bounds of the detection accuracy at thresholds given beforehand.

    Each is the mean of the binomial bounds of the two sides at alpha / 2, which holds however the
    sides depend on each other; each source counts once on a side.

    Args:
        folds: scores of every fold.
        sources: of these folds.
        thresholds: of every fold; abnormal is what lies above.
        alpha: level of each bound by itself.
    """
    low = high = 0.0
    for side, places in (("normal", sources.normal), ("abnormal", sources.abnormal)):
        used = np.zeros(len(sources.names), dtype=bool)
        right = trials = 0
        for fold, members, threshold in zip(folds, places, thresholds):
            new, rows = _first(members, used)
            used[new] = True
            called = np.asarray(getattr(fold, side))[rows] > threshold
            right += int((called == (side == "abnormal")).sum())
            trials += len(rows)
        low += binomial_lower(right, trials, alpha / 2) / 2
        high += (1 - binomial_lower(trials - right, trials, alpha / 2)) / 2
    return low, high


def _first(members: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sources that are not used yet and the row of the first image of each."""
    found, rows = np.unique(members, return_index=True)
    return found[~used[found]], rows[~used[found]]
