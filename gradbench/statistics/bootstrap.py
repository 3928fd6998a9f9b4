"""The one bootstrap: weights of resampled sources, and detection metrics measured under them.

A resample gives every source (the group of an image and of all that was made from it) a weight:
that of the Bayesian bootstrap (Rubin 1981, Annals of Statistics 9), exponential with mean 1,
independent between sources, and here a function of the seed, the number of the resample and the
*name* of the source alone. So methods, challenges, folds and networks can be measured one by one,
and kept; differences and means of their resamples are still paired.

Every task is measured under the same weights: `bootstrap` calls its measures with those of each
fold. `source_weights` gives them by name, for studies of one's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gradbench.errors import GradbenchError
from gradbench.statistics.metrics import MEASURES, Measure, SortedScores

_HELD = 2**20
"""Weights held at a time: resamples of a chunk times images."""

Weights = Sequence[tuple[np.ndarray, np.ndarray] | None]
"""For every fold the weights of its normal (R, n) and abnormal images (R, m); None for ones."""


@dataclass(frozen=True)
class EvaluationSettings:
    """The number of resamples, the confidence of intervals, and the seed of resamples."""

    replicates: int = 1000
    confidence: float = 0.95
    seed: int = 0


def source_weights(names: np.ndarray, replicates: Sequence[int], seed: int) -> np.ndarray:
    """Return the weights (R, G) of distinct sources in numbered resamples, exponential with mean 1.

    A column depends on nothing but the name and the seed.
    """
    return _exponential(_keys(names, seed), np.asarray(replicates))


def _keys(names: np.ndarray, seed: int) -> np.ndarray:
    """Return 64 bits for every name."""
    salted = (f"{seed}\n{name}".encode() for name in np.asarray(names).tolist())
    keys = [int.from_bytes(hashlib.sha256(text).digest()[:8], "little") for text in salted]
    return np.array(keys, dtype=np.uint64)


def _exponential(keys: np.ndarray, replicates: np.ndarray) -> np.ndarray:
    """Return (R, G) weights, from the counter-based generator SplitMix64 (Steele et al. 2014)."""
    turns = (replicates.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    bits = keys[None, :] + turns[:, None]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits ^= bits >> np.uint64(shift)
        bits *= np.uint64(factor)
    bits ^= bits >> np.uint64(31)
    return -np.log(((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)


@dataclass(frozen=True)
class BootstrapSamples:
    """A number in every fold, (F,), and its mean over folds in every resample, (R,); fractions."""

    per_fold: np.ndarray
    samples: np.ndarray

    @property
    def value(self) -> float:
        """Mean over folds."""
        return float(self.per_fold.mean())

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the percentile interval, wide enough to hold the value."""
        value = self.value
        lo, hi = np.quantile(self.samples, [(1 - confidence) / 2, (1 + confidence) / 2])
        # Means of equal numbers may differ in the last bit; that is no interval.
        if hi - lo < 1e-12 and abs(value - lo) < 1e-12:
            return value, value
        return min(float(lo), value), max(float(hi), value)


def combine(
    parts: Sequence[BootstrapSamples], shares: Sequence[float] | None = None
) -> BootstrapSamples:
    """Return a weighted sum of numbers measured in the same resamples; their mean by default.

    The folds of the sum are those of its parts where all have equally many, otherwise its value.
    All parts have the same number of resamples with the same seed; the shares of a difference are
    [1, -1].
    """
    shares = [1 / len(parts)] * len(parts) if shares is None else shares
    samples = sum(share * part.samples for share, part in zip(shares, parts))
    if len({len(part.per_fold) for part in parts}) == 1:
        per_fold = sum(share * part.per_fold for share, part in zip(shares, parts))
        return BootstrapSamples(per_fold, samples)
    value = sum(share * part.value for share, part in zip(shares, parts))
    return BootstrapSamples(np.array([value]), samples)


@dataclass(frozen=True)
class FoldScores:
    """The scores that one fitted detector gave to one fold; higher = more abnormal.

    Those of the measured images, (n,) normal and (m,) abnormal, with their groups (a group on both
    sides is a pair of twins); those of *choose*, empty where there are none; and `half`, the score
    at which the detector itself says 0.5, where it has one.
    """

    normal: np.ndarray
    normal_groups: np.ndarray
    abnormal: np.ndarray
    abnormal_groups: np.ndarray
    choose_normal: np.ndarray = field(default_factory=lambda: np.empty(0))
    choose_abnormal: np.ndarray = field(default_factory=lambda: np.empty(0))
    half: float | None = None


class Sources:
    """The sources (groups) of all folds, and where the images of each stand.

    Attributes:
        names: (G,) distinct groups, ascending.
        normal: for each fold, the source of each normal image as an index into `names`.
        abnormal: the same for the abnormal images.

    Raises:
        GradbenchError: if a fold has an empty side.
    """

    def __init__(self, folds: Sequence[FoldScores]):
        for number, fold in enumerate(folds):
            for side in ("normal", "abnormal"):
                if not len(getattr(fold, side)):
                    raise GradbenchError(f"fold {number} has no {side} image to be measured")
        parts = [groups for fold in folds for groups in (fold.normal_groups, fold.abnormal_groups)]
        parts = [np.asarray(groups, dtype=str) for groups in parts]
        self.names, index = np.unique(np.concatenate(parts), return_inverse=True)
        places = np.split(index, np.cumsum([len(groups) for groups in parts])[:-1])
        self.normal, self.abnormal = places[0::2], places[1::2]

    def resample(self, replicates: int, seed: int) -> Iterator[tuple[slice, Weights]]:
        """Yield the weights that resampled sources give to the images, a chunk at a time.

        A source weighs the same wherever it stands, so twins do, in whichever folds they are. The
        weights of a side of a fold are scaled to its number of images: a resample has the classes
        in the same proportion, or AUPR would vary with them.

        Yields:
            The replicates of the chunk, and the weights of all folds.
        """
        keys = _keys(self.names, seed)
        images = sum(map(len, self.normal)) + sum(map(len, self.abnormal))
        step = max(1, _HELD // images)
        for start in range(0, replicates, step):
            rows = slice(start, min(start + step, replicates))
            weights = _exponential(keys, np.arange(rows.start, rows.stop))
            sides = zip(self.normal, self.abnormal)
            yield rows, [(_scaled(weights[:, n]), _scaled(weights[:, a])) for n, a in sides]


def _scaled(weights: np.ndarray) -> np.ndarray:
    """Return (R, n) weights that have the mean 1 in every resample."""
    return weights / weights.mean(axis=1, keepdims=True)


def both_sides(normal: np.ndarray, abnormal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of both sides and which are abnormal."""
    scores = np.concatenate([normal, abnormal])
    return scores, np.arange(len(scores)) >= len(normal)


def bootstrap(
    sources: Sources,
    values: Callable[[Weights], Mapping[Measure, Sequence[np.ndarray]]],
    replicates: int,
    seed: int,
) -> dict[Measure, BootstrapSamples]:
    """Return measures in every fold and every resample.

    Args:
        sources: of the measured images of all folds.
        values: of each measure in every fold, (R,) each, under the weights of the folds.
        replicates: resamples.
        seed: of the resamples.
    """
    per_fold = values([None] * len(sources.normal))
    samples = {measure: np.empty(replicates) for measure in per_fold}
    for rows, weights in sources.resample(replicates, seed):
        for measure, of_folds in values(weights).items():
            samples[measure][rows] = np.stack(of_folds).mean(axis=0)
    return {m: BootstrapSamples(np.stack(per_fold[m])[:, 0], samples[m]) for m in samples}


def bootstrap_folds(
    folds: Sequence[FoldScores],
    sources: Sources,
    wanted: Sequence[Measure],
    thresholds: Mapping[str, Sequence[float] | None],
    replicates: int,
    seed: int,
) -> dict[Measure, BootstrapSamples]:
    """Return some of `metrics.MEASURES` in every fold and every resample.

    `thresholds` holds those of every fold, by threshold rule, for detection accuracy.

    Raises:
        GradbenchError: if a score is not a number.
    """
    sorted_folds = [SortedScores(*both_sides(fold.normal, fold.abnormal)) for fold in folds]

    def values(weights: Weights) -> dict[Measure, list[np.ndarray]]:
        by_measure: dict[Measure, list[np.ndarray]] = {measure: [] for measure in wanted}
        for number, (scores, sides) in enumerate(zip(sorted_folds, weights)):
            curve = scores.curve(None if sides is None else np.concatenate(sides, axis=1))
            for measure in wanted:
                fixed = thresholds.get(measure.threshold_rule)
                by_measure[measure].append(curve.value(measure, fixed[number] if fixed else None))
        return by_measure

    return bootstrap(sources, values, replicates, seed)


def bootstrap_auroc(
    folds: Sequence[FoldScores], replicates: int = 1000, seed: int = 0
) -> BootstrapSamples:
    """Return AUROC in the resamples that `intervals.measure_detection` draws.

    Raises:
        GradbenchError: if a fold has an empty side or a score is not a number.
    """
    auroc = MEASURES[0]
    return bootstrap_folds(folds, Sources(folds), [auroc], {}, replicates, seed)[auroc]
