"""What a run will fit and score its detectors on, as far as it can be told before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gradbench.challenges.other_set import OtherSet
from gradbench.data.dataset import MissingData
from gradbench.data.imageset import ImageSet
from gradbench.data.roles import stratified_subset
from gradbench.errors import Faulty
from gradbench.methods.base import Detector
from gradbench.outputs.cached_passes import CachedPasses
from gradbench.planning.challenges import Challenges
from gradbench.planning.counting import Side
from gradbench.protocols.base import Grouped, Protocol
from gradbench.protocols.presets import Transfer
from gradbench.run.experiment import Cell
from gradbench.run.judging import scores_key
from gradbench.run.sides import protocol, sides
from gradbench.run.thresholds import fewer
from gradbench.run.trial import Trial
from gradbench.statistics.controls import random_labels
from gradbench.store import Product


@dataclass(frozen=True)
class Judgement:
    """A detector's fit and scores on one challenge.

    Attributes:
        title: of the challenge.
        sides: normal and abnormal images.
        protocol: that divides them.
        product: the scores, None where they are not there.
    """

    title: str
    sides: tuple[Side, Side]
    protocol: Protocol
    product: Product | None


class Judgements:
    """What the detectors of one network are judged on.

    Args:
        challenges: of the run, their own lines known.
        seed: that the experiment names for the network.
    """

    def __init__(self, challenges: Challenges, seed: int):
        self.challenges, self.experiment = challenges, challenges.experiment
        self.images, self.f, self.store = challenges.images, challenges.f, challenges.store
        self.trial = Trial(self.experiment, self.images, self.f, seed, self.store)
        self.seed = self.experiment.config["evaluation"]["seed"]

    def main(self, name: str, detector: Detector) -> Iterator[Judgement]:
        """Yield how a detector is judged on every challenge."""
        how = self.experiment.protocol
        if isinstance(how, Transfer) and detector.learns_from_challenges:
            how = how.within()
        for cell, both in self.sides.items():
            yield self._judgement(name, cell.title, both, how)

    def controls(self, name: str, detector: Detector) -> Iterator[Judgement]:
        """Yield how a detector is judged in the controls."""
        wanted, how = self.experiment.config["controls"], self.experiment.protocol
        learns, clean = detector.learns_from_challenges, self.images.normal
        if wanted["identity"]:
            folds = self.experiment.config["protocol"].get("folds", 5)
            both = self._side(clean), self._side(clean)
            yield self._judgement(name, "identity", both, Grouped(folds=folds))
        if wanted["random_labels"] and learns:
            ones = random_labels(clean.groups, self.seed)
            both = (self._side(clean.select(np.flatnonzero(rows))) for rows in (~ones, ones))
            yield self._judgement(name, "random labels", tuple(both), how)
        some = stratified_subset(clean, wanted["limit"])
        for cell, both in self.sides.items():
            if wanted["round_trip"] and isinstance(cell.challenge, OtherSet):
                tripped = self._side(some, f"round trip of {cell.title}")
                yield self._judgement(name, tripped.title, (self._side(some), tripped), how)
            groups = np.concatenate([side.again.images.groups for side in both])
            if wanted["random_split"] and learns and len(np.unique(groups)) < len(groups):
                torn = how.ungrouped()
                if torn is not None:
                    yield self._judgement(name, f"{cell.title} torn", both, torn)

    def remembered(self) -> list[Side]:
        """Return training images and hold-out of the memorisation."""
        wanted = self.experiment.config["controls"]
        known = self.images.provenance
        if not (wanted["memorisation"] and len(self.images.hold_out) and known.unseen):
            return []
        both = self.images.train, self.images.hold_out
        return [self._side(stratified_subset(images, wanted["limit"])) for images in both]

    def thresholds(self) -> list[Side]:
        """Return the part of the hold-out that thresholds are taken from."""
        clean = stratified_subset(self.images.hold_out, self.experiment.config["model"]["hold_out"])
        if not self.experiment.config["model"]["hold_out"] or not len(clean):
            return []
        return [self._side(clean.select(fewer(clean)))]

    @cached_property
    def sides(self) -> dict[Cell, tuple[Side, Side]]:
        """Both sides of every challenge; before its images are made and read those it is made of.

        Of an attack not all images may be kept, which is known only afterwards.
        """
        found, clean = {}, self.images.normal
        for cell, images in self.challenges.found.items():
            if cell in self.challenges.ready:
                # too few images of an attack are kept, or a class from outside has a fault
                with contextlib.suppress(MissingData, Faulty):
                    both = sides(self.trial, cell, self.trial.challenge(cell))
                    found[cell] = tuple(self._side(seen.images) for seen in both)
                continue
            attacked = hasattr(cell.challenge, "keep")
            some = attacked and protocol(self.experiment, cell) != ("all", False)
            normal = self._side(clean, f"clean images of {cell.title}" if some else "")
            title = cell.title if images is None else ""
            found[cell] = normal, self._side(clean if images is None else images, title)
        return found

    def _side(self, images: ImageSet, title: str = "") -> Side:
        """Return images as a side; those with a title are not made yet."""
        weights = self.f.weights if self.f else ""
        again = CachedPasses(self.challenges.backbone, weights, images, self.store, self.seed)
        return Side(title, again, not title)

    def _judgement(
        self, name: str, title: str, both: tuple[Side, Side], how: Protocol
    ) -> Judgement:
        product = None
        if self.f is not None and all(side.made for side in both):
            normal, abnormal = (side.again.images for side in both)
            product = self.store.get(scores_key(self.trial, name, normal, abnormal, how))
        return Judgement(title, both, how, product)
