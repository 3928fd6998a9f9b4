"""Which measured images share a source, and resamples of the sources.

The weights of a resample are those of the Bayesian bootstrap (Rubin 1981, Annals of Statistics 9):
exponential with mean 1, independent between sources, and here a function of the seed, the number of
the resample and the *name* of the source alone. So detectors, challenges, folds and networks can be
measured one by one, and kept; differences and means of their resamples are still paired.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from gradbench.errors import GradbenchError

_CELLS = 2**20
"""Weights held at a time: resamples of a chunk times images."""


@dataclass(frozen=True)
class FoldScores:
    """What one fitted detector gave to one fold; higher = more abnormal.

    Attributes:
        normal: (n,) scores of the measured normal images.
        normal_groups: (n,) their groups.
        abnormal: (m,) scores of the measured abnormal images.
        abnormal_groups: (m,) their groups; a group on both sides is a pair of twins.
        choose_normal: scores of the normal images of *choose*, empty where there are none.
        choose_abnormal: scores of the abnormal images of *choose*.
        half: the score at which the detector itself says 0.5, where it has one.
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
        GradbenchError: if there is no fold, or a fold has an empty side.
    """

    def __init__(self, folds: Sequence[FoldScores]):
        if not folds:
            raise GradbenchError("nothing to measure: no fold was given")
        for number, fold in enumerate(folds):
            for side in ("normal", "abnormal"):
                scores, groups = getattr(fold, side), getattr(fold, f"{side}_groups")
                if len(scores) != len(groups):
                    raise ValueError(f"fold {number}: {side} scores and groups differ in number")
                if not len(scores):
                    raise GradbenchError(f"fold {number} has no {side} image to be measured")
        parts = [groups for fold in folds for groups in (fold.normal_groups, fold.abnormal_groups)]
        parts = [np.asarray(groups, dtype=str) for groups in parts]
        self.names, index = np.unique(np.concatenate(parts), return_inverse=True)
        places = np.split(index, np.cumsum([len(groups) for groups in parts])[:-1])
        self.normal, self.abnormal = places[0::2], places[1::2]

    def resample(
        self, replicates: int, seed: int
    ) -> Iterator[tuple[slice, list[tuple[np.ndarray, np.ndarray]]]]:
        """Yield the weights that resampled sources give to the images, a chunk at a time.

        A source weighs the same wherever it stands, so twins do, in whichever folds they are. The
        weights of a side of a fold are scaled to its number of images: a resample has the classes
        in the same proportion. They depend on the names of the sources and the seed, never on the
        scores.

        Yields:
            The replicates of the chunk, and for each fold the weights of its normal images (R, n)
            and of its abnormal images (R, m).
        """
        keys = _keys(self.names, seed)
        images = sum(map(len, self.normal)) + sum(map(len, self.abnormal))
        step = max(1, _CELLS // images)
        for start in range(0, replicates, step):
            rows = slice(start, min(start + step, replicates))
            weights = _exponential(keys, np.arange(rows.start, rows.stop))
            yield (
                rows,
                [
                    (_scaled(weights[:, n]), _scaled(weights[:, a]))
                    for n, a in zip(self.normal, self.abnormal)
                ],
            )


def _scaled(weights: np.ndarray) -> np.ndarray:
    """Return (R, n) weights that have the mean 1 in every resample."""
    return weights / weights.mean(axis=1, keepdims=True)


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
