"""Counts passes over perturbed images, which rows have which, as a run would ask for them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from gradbench.data.imageset import shards
from gradbench.outputs.cached_passes import CachedPasses
from gradbench.outputs.perturbed import PerturbedPass, PlannedPass
from gradbench.protocols.base import Fold


@dataclass(frozen=True)
class Side:
    """Images of which passes are counted.

    Attributes:
        title: names images that are not made yet.
        again: of the images, or of those that they will be made from.
        made: they are there, so that their passes can be looked up.
    """

    title: str
    again: CachedPasses
    made: bool = True

    def drawn(self, rows: np.ndarray, count: int | None) -> np.ndarray:
        """Return at most so many of the rows, those that come first in the random order."""
        if count is None:
            return rows
        return np.sort(rows[np.argsort(self.again.order[rows])[:count]])


@dataclass
class Count:
    """Products of passes, each counted once, and the seconds for those that are missing.

    Attributes:
        rate: seconds an image takes, for source and number of steps.
        trained: there is a network, so that its passes can be looked up.
        parts: products.
        present: of them in the store.
        seconds: for the others.
    """

    rate: Callable[[str, int], float]
    trained: bool
    parts: int = 0
    present: int = 0
    seconds: float = 0.0
    _seen: set[Hashable] = field(default_factory=set)

    def rows(
        self, side: Side, rows: np.ndarray, asked: PlannedPass, label: Hashable, done: bool = False
    ) -> None:
        """Count a pass over ascending rows of a side.

        Args:
            side: the images.
            rows: of them.
            asked: the pass.
            label: tells passes apart whose steps or losses are not known yet.
            done: what it was made for is there already.
        """
        digests = side.again.images.digests if side.made else None
        for place, shard in enumerate(shards(len(side.again.images))):
            mine = rows[(rows >= shard.start) & (rows < shard.stop)] - shard.start
            digest = digests[place] if digests else (side.title, place)
            product = (digest, mine.tobytes(), label)
            if not len(mine) or product in self._seen:
                continue
            self._seen.add(product)
            self.parts += 1
            if done or self._there(side, asked.what, digest, mine):
                self.present += 1
            else:
                self.seconds += len(mine) * self.rate(asked.source, asked.steps)

    def folds(
        self,
        sides: tuple[Side, Side],
        folds: Sequence[Fold],
        asked: Sequence[PlannedPass],
        label: Hashable,
        done: bool,
    ) -> None:
        """Count what fitting and scoring a detector in every fold asks for.

        A row that had all steps needs no pass for the chosen one.

        Args:
            sides: normal and abnormal images.
            folds: of the protocol.
            asked: what the detector asks for in a fold.
            label: names the fits, whose chosen steps may differ from those of others.
            done: its scores are there already.
        """
        had = {(_name(f), s): np.zeros(len(side.again.images), bool)
               for f in asked if not f.chosen for s, side in enumerate(sides)}  # fmt: skip
        for number, fold in enumerate(folds):
            for further in asked:
                part = getattr(fold, further.part)
                for s, (side, rows) in enumerate(zip(sides, (part.normal, part.abnormal))):
                    rows = side.drawn(rows, further.most)
                    if further.chosen:
                        tried = [had[_name(f), s] for f in asked
                                 if not f.chosen and f.source == further.source]  # fmt: skip
                        known, name = np.all(tried, axis=0), (label, number, further.source)
                    else:
                        known, name = had[_name(further), s].copy(), _name(further)
                        had[name, s][rows] = True
                    self.rows(side, rows[~known[rows]], further, name, done)

    def _there(self, side: Side, what: PerturbedPass | None, digest: str, rows: np.ndarray) -> bool:
        if not (self.trained and side.made) or what is None:
            return False
        return side.again.store.has(side.again.key(what, digest, rows))


def _name(further: PlannedPass) -> Hashable:
    """Return what tells tried passes apart: the pass itself, or where it is not known its layer."""
    return further.source if further.what is None else (further.source, id(further.what.loss))
