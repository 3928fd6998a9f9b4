"""AUROC in resamples that belong together: one source weighs the same wherever it stands.

The weights of a resample are those of the Bayesian bootstrap (Rubin 1981, Annals of Statistics 9):
exponential with mean 1, independent between sources, and here a function of the seed, the number of
the resample and the *name* of the source alone. So detectors, challenges, folds and networks can be
measured one by one, and kept; differences and means of their resamples are still paired.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradbench.evaluation.curve import Weighted
from gradbench.evaluation.resampling import FoldScores, Sources

_CELLS = 2**20
"""Weights held at a time: resamples of a chunk times sources."""


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
    """Return AUROC in every fold and its mean over folds in every resample.

    Args:
        folds: scores of every fold.
        replicates: resamples.
        seed: of the weights.

    Raises:
        GradbenchError: if a fold has an empty side or a score is not a number.
    """
    sources = Sources(folds)
    keys = _keys(sources.names, seed)
    curves = [
        Weighted(
            np.concatenate([fold.normal, fold.abnormal]),
            np.arange(len(fold.normal) + len(fold.abnormal)) >= len(fold.normal),
        )
        for fold in folds
    ]
    places = [np.concatenate(sides) for sides in zip(sources.normal, sources.abnormal)]
    per_fold = np.array([curve.curve().auroc()[0] for curve in curves])
    samples = np.empty(replicates)
    step = max(1, _CELLS // len(keys))
    for start in range(0, replicates, step):
        rows = np.arange(start, min(start + step, replicates))
        weights = _exponential(keys, rows)
        found = [curve.curve(weights[:, place]).auroc() for curve, place in zip(curves, places)]
        samples[rows] = np.mean(found, axis=0)
    return Sampled(per_fold, samples)


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


def _keys(names: np.ndarray, seed: int) -> np.ndarray:
    """Return 64 bits for every name."""
    salted = (f"{seed}\n{name}".encode() for name in names.tolist())
    return np.array(
        [int.from_bytes(hashlib.sha256(text).digest()[:8], "little") for text in salted],
        dtype=np.uint64,
    )


def _exponential(keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return (R, G) exponential weights, from the counter-based generator SplitMix64."""
    turns = (rows.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    bits = keys[None, :] + turns[:, None]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits ^= bits >> np.uint64(shift)
        bits *= np.uint64(factor)
    bits ^= bits >> np.uint64(31)
    return -np.log(((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)
