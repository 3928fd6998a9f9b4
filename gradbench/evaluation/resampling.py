"""Which measured images share a source, and resamples of the sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from gradbench.errors import GradbenchError

_CELLS = 2**20
"""Weights held at a time: replicates of a chunk times images."""


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
        self._strata = self._alike(places)

    def resample(
        self, replicates: int, seed: int
    ) -> Iterator[tuple[slice, list[tuple[np.ndarray, np.ndarray]]]]:
        """Yield the weights that resampled sources give to the images, a chunk at a time.

        Sources are drawn with replacement among those that stand in the same places (the same
        folds and sides), so every fold keeps its size and twins are drawn together, in whichever
        folds they stand. Of n sources n - 1 are drawn, with weight n / (n - 1): this makes the
        variance of a mean unbiased, which matters in folds of a few images (Rao & Wu 1988,
        Resampling inference with complex survey data, JASA 83). The draws depend on the names of
        the sources and the seed, never on the scores.

        Yields:
            The replicates of the chunk, and for each fold the weights of its normal images (R, n)
            and of its abnormal images (R, m).
        """
        generators = [np.random.default_rng([seed, i]) for i in range(len(self._strata))]
        images = sum(map(len, self.normal)) + sum(map(len, self.abnormal))
        step = max(1, _CELLS // images)
        for start in range(0, replicates, step):
            rows = slice(start, min(start + step, replicates))
            counts = np.empty((rows.stop - start, len(self.names)), dtype=np.float64)
            for generator, members in zip(generators, self._strata):
                counts[:, members] = _draw(generator, len(counts), len(members))
            yield rows, [(counts[:, n], counts[:, a]) for n, a in zip(self.normal, self.abnormal)]

    def _alike(self, places: list[np.ndarray]) -> list[np.ndarray]:
        """Return sets of sources that stand in the same places; lone ones make one set together."""
        present = np.zeros((len(self.names), len(places)), dtype=np.uint8)
        for place, members in enumerate(places):
            present[members, place] = 1
        _, kind = np.unique(np.packbits(present, axis=1), axis=0, return_inverse=True)
        kind = kind.reshape(-1)
        kind = np.where(np.bincount(kind)[kind] > 1, kind, -1)
        return [np.flatnonzero(kind == value) for value in np.unique(kind)]


def _draw(generator: np.random.Generator, replicates: int, count: int) -> np.ndarray:
    """Return (R, count) weights of `count - 1` draws, scaled to sum to `count`."""
    draws = max(count - 1, 1)
    drawn = generator.integers(0, count, size=(replicates, draws))
    drawn += np.arange(replicates)[:, None] * count
    counts = np.bincount(drawn.reshape(-1), minlength=replicates * count)
    return counts.reshape(replicates, count) * (count / draws)
