"""Exact bounds: from independent pairs and counts, and inequalities between the metrics.

Where a detector hardly errs, or images are few, resamples do not differ and the bootstrap says
nothing; these bounds hold whatever the distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import beta

from gradbench.errors import GradbenchError
from gradbench.statistics.bootstrap import FoldScores, Sources


class DisjointPairs(NamedTuple):
    """Pairs of a normal and an abnormal image, no source of which is in another pair.

    The abnormal image has the higher score in those won, the lower in those lost; the rest are
    ties.
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


def disjoint_pairs(folds: Sequence[FoldScores], sources: Sources, seed: int) -> DisjointPairs:
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
        normal, normal_rows = _unused(of_normal, used)
        abnormal, abnormal_rows = _unused(of_abnormal, used)
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
    return DisjointPairs(int(count), int(won), int(lost))


def accuracy_bounds(
    folds: Sequence[FoldScores], sources: Sources, thresholds: Sequence[float], alpha: float
) -> tuple[float, float]:
    """Return exact bounds of the detection accuracy at thresholds fixed beforehand.

    Each is the mean of the binomial bounds of the two sides at alpha / 2, which holds however the
    sides depend on each other; each source counts once on a side. A score above the threshold of
    its fold is abnormal; `alpha` is the level of each bound by itself.
    """
    low = high = 0.0
    for side, places in (("normal", sources.normal), ("abnormal", sources.abnormal)):
        used = np.zeros(len(sources.names), dtype=bool)
        right = trials = 0
        for fold, members, threshold in zip(folds, places, thresholds):
            new, rows = _unused(members, used)
            used[new] = True
            flagged = np.asarray(getattr(fold, side))[rows] > threshold
            right += int((flagged == (side == "abnormal")).sum())
            trials += len(rows)
        low += binomial_lower(right, trials, alpha / 2) / 2
        high += (1 - binomial_lower(trials - right, trials, alpha / 2)) / 2
    return low, high


def _unused(members: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sources that are not used yet and the row of the first image of each."""
    distinct, rows = np.unique(members, return_index=True)
    return distinct[~used[distinct]], rows[~used[distinct]]


def auroc_bounds(accuracy: float) -> tuple[float, float]:
    """Return the AUROCs that a best detection accuracy allows.

    With J = 2 * accuracy - 1: J <= AUROC <= 1 - (1 - J)^2 / 2 (methods.md, a.9). Both ends are
    concave in J or linear, so the bounds hold for means over folds as well.
    """
    j = 2 * accuracy - 1
    return j, 1 - (1 - j) ** 2 / 2


def check_bounds(auroc: float, accuracy: float, n: int, fpr95: float | None = None) -> None:
    """Stop where AUROC, best detection accuracy and FPR95 of the same n images contradict.

    See `auroc_bounds`; of either side, 1 - accuracy <= (0.05 + fpr95) / 2. The tolerance is 1 / n.

    Raises:
        GradbenchError: naming the numbers; the scores or their labels were mixed up.
    """
    low, high = auroc_bounds(accuracy)
    if not low - 1 / n <= auroc <= high + 1 / n:
        raise GradbenchError(
            f"AUROC {auroc:.6f} and best detection accuracy {accuracy:.6f} of the same {n} images "
            f"contradict: AUROC must lie between {low:.6f} and {high:.6f}"
        )
    if fpr95 is not None and not 1 - accuracy <= (0.05 + fpr95) / 2 + 1 / n:
        raise GradbenchError(
            f"best detection accuracy {accuracy:.6f} and FPR95 {fpr95:.6f} of the same {n} images "
            f"contradict: the detection error must be at most {(0.05 + fpr95) / 2:.6f}"
        )


def accuracy_from_auroc(auroc: float) -> float:
    """Return the least best detection accuracy that an AUROC allows: 1 - sqrt((1 - AUROC) / 2)."""
    return max(0.5, 1 - np.sqrt((1 - auroc) / 2))


def fpr95_from_auroc(auroc: float) -> float:
    """Return the largest FPR95, of either side, that an AUROC allows: 20 (1 - AUROC).

    The error at recall r, F(r), does not fall with r, and its mean over r is 1 - AUROC.
    """
    return min(1.0, 20 * (1 - auroc))


def aupr_from_auroc(auroc: float, share: float) -> float:
    """Return a lower bound of the average precision that an AUROC allows.

    At recall r the error is at most (1 - AUROC) / (1 - r); precision follows from it and from the
    share of the positive class. Ties count as lost in the AUROC.
    """
    recall = (np.arange(100_000) + 0.5) / 100_000
    error = np.minimum(1, (1 - auroc) / (1 - recall))
    return float(np.mean(share * recall / (share * recall + (1 - share) * error)))
