"""AUROC in resamples that belong together, and what is made of them: means and differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradbench.statistics.curve import MEASURES
from gradbench.statistics.per_fold import evaluate
from gradbench.statistics.resampling import FoldScores, Sources


@dataclass(frozen=True)
class Sampled:
    """AUROC of a detector on a challenge, or of anything made by `combined`.

    Attributes:
        per_fold: (F,) fractions.
        samples: (R,) mean over folds in each resample.
    """

    per_fold: np.ndarray
    samples: np.ndarray

    @property
    def value(self) -> float:
        """Mean over folds."""
        return float(self.per_fold.mean())

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the percentile interval, wide enough to hold the value."""
        lo, hi = np.quantile(self.samples, [(1 - confidence) / 2, (1 + confidence) / 2])
        return min(float(lo), self.value), max(float(hi), self.value)


def sampled(folds: Sequence[FoldScores], replicates: int = 1000, seed: int = 0) -> Sampled:
    """Return AUROC in every fold and its mean over folds in every resample, those of `measure`.

    Args:
        folds: scores of every fold.
        replicates: resamples.
        seed: of the weights.

    Raises:
        GradbenchError: if a fold has an empty side or a score is not a number.
    """
    auroc = MEASURES[0]
    per_fold, samples = evaluate(folds, Sources(folds), [auroc], {}, replicates, seed)
    return Sampled(per_fold[auroc], samples[auroc])


def combined(parts: Sequence[Sampled], shares: Sequence[float] | None = None) -> Sampled:
    """Return a weighted sum of AUROCs measured in the same resamples; their mean by default.

    The folds of the sum are those of its parts where all have equally many, otherwise its value.

    Args:
        parts: each of the same number of resamples with the same seed.
        shares: weight of each part, for a difference [1, -1].
    """
    shares = [1 / len(parts)] * len(parts) if shares is None else shares
    samples = sum(share * part.samples for share, part in zip(shares, parts))
    if len({len(part.per_fold) for part in parts}) == 1:
        return Sampled(sum(s * part.per_fold for s, part in zip(shares, parts)), samples)
    value = sum(share * part.value for share, part in zip(shares, parts))
    return Sampled(np.array([value]), samples)
