"""The challenges of a run: making them, and reading f for them and for noisy copies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from gradbench.backbones.backbone import Backbone
from gradbench.challenges.base import Derived
from gradbench.challenges.other_set import OtherSet
from gradbench.challenges.produce import BATCH, ChallengeSetup
from gradbench.data.dataset import MissingData
from gradbench.data.imageset import ImageSet, shards
from gradbench.data.in_distribution import InDistribution
from gradbench.errors import Faulty
from gradbench.planning.planned import (
    AFTER,
    AT_MOST,
    Known,
    Planned,
    offline,
    outputs,
    timed,
    would_come,
)
from gradbench.run.experiment import Cell, Experiment
from gradbench.run.sides import check_enough, noisy_copies, protocol
from gradbench.run.trial import archive_for, brought, from_archive, source
from gradbench.store import Store
from gradbench.support.progress import step

TRIED = 10
"""Clean images, at most, on which an attack is timed whose images leave early."""
PATIENCE = 5.0
"""Seconds that this may take, if no image leaves."""


@dataclass
class Challenges:
    """The challenges of a run beside one network.

    Attributes:
        experiment: what is asked for.
        images: the clean images.
        backbone: the network, or one like it before it is trained.
        f: the trained network, None before.
        each: seconds that reading the outputs of one image takes.
        store: where products lie.
        found: challenges that will be measured, with their images where they are at hand.
        ready: those of which everything that is made and read is in the store.
    """

    experiment: Experiment
    images: InDistribution
    backbone: Backbone
    f: Known | None
    each: float
    store: Store
    found: dict[Cell, ImageSet | None] = field(default_factory=dict)
    ready: set[Cell] = field(default_factory=set)

    def lines(self) -> list[Planned]:
        """Return the lines of the clean images, of every challenge and of its round trips."""
        clean = self.images.normal
        first = self._outputs(clean.name, clean.digests, len(clean))
        found, copied = [first], set()
        for cell in self.experiment.cells:
            lines = list(self._cell(cell))
            if isinstance(cell.challenge, Derived) and protocol(self.experiment, cell)[1]:
                if cell.challenge.noise not in copied:
                    lines += self._copies(cell)
                copied.add(cell.challenge.noise)
            if all(line.present == line.parts > 0 for line in (first, *lines)):
                self.ready.add(cell)
            found += lines
        trips = sum(isinstance(c.challenge, OtherSet) for c in self.experiment.cells)
        controls = self.experiment.config["controls"]
        if controls["round_trip"] and trips:
            seconds = trips * min(controls["limit"], len(clean)) * self.each
            found.append(Planned("outputs", f"{trips} round trips", trips, 0, seconds, AT_MOST))
        return found

    def _cell(self, cell: Cell) -> Iterator[Planned]:
        experiment, normal = self.experiment, self.images.normal
        try:
            archive = archive_for(experiment, cell)
            if archive is not None:
                images = from_archive(experiment, cell, archive, self.images, self.store)
            elif isinstance(cell.challenge, Derived):
                self.found[cell] = None
                yield from self._derived(cell)
                return
            else:
                if isinstance(cell.challenge, OtherSet):
                    dataset = experiment.other_dataset(cell.challenge)
                    if would_come(dataset, "challenge", experiment):
                        note = dataset.ready("challenge", experiment.data)
                        yield Planned("outputs", cell.title, 0, 0, note=note)
                        return
                images = brought(experiment, cell, normal, offline(experiment)).images
            check_enough(experiment, normal.groups, images.groups)
            digests = images.digests  # which decodes files
        except (MissingData, Faulty) as reason:
            yield Planned("outputs", cell.title, 0, 0, note=f"will not be measured: {reason}")
            return
        self.found[cell] = images
        yield self._outputs(cell.title, digests, len(images))

    def _derived(self, cell: Cell) -> Iterator[Planned]:
        if cell.challenge.uses_network and self.f is None:
            clean, passes = self.images.normal, getattr(cell.challenge, "passes", 1)
            count, seconds = len(shards(len(clean))), len(clean) * self.each
            most = getattr(cell.challenge, "leaves_early", False)
            note = f"at most, {AFTER}" if most else AFTER
            yield Planned("challenge", cell.title, count, 0, passes * seconds, note)
            yield Planned("outputs", cell.title, count, 0, seconds, AFTER)
            return
        yield from self._made(cell.title, source(self.experiment, cell, self.f), self.f)

    def _copies(self, cell: Cell) -> Iterator[Planned]:
        """Yield what noisy copies of the clean images take, which count as normal."""
        copies = noisy_copies(self.experiment, cell, self.images.normal, self.backbone)
        names = {*self.experiment.reads, "logits"}
        read = self.experiment.outputs.of_network(self.backbone, names)
        known = self.f and replace(self.f, outputs=read)
        what = f"{copies.name}, deviation {cell.challenge.noise:g}"
        yield from self._made(what, copies, known)

    def _made(self, what: str, how: ChallengeSetup, known: Known | None) -> Iterator[Planned]:
        """Yield the lines of images that are made from the clean ones, and of their outputs."""
        clean = self.images.normal
        products = [self.store.get(key) for key in how.keys(clean)]
        count, present = len(products), sum(p is not None for p in products)
        missing, note = (count - present) * len(clean) / count, ""
        rate = self.each * getattr(how.challenge, "passes", 1 if how.network else 0.01)
        if missing and getattr(how.challenge, "leaves_early", False):
            few = min(TRIED, len(clean), BATCH, int(PATIENCE / max(rate, 1e-9)))
            rate = self._tried(how, clean, few) if few else rate
            note = f"from {few} images" if few else "at most"
        yield Planned("challenge", what, count, present, missing * rate, note)
        digests = [p.about["digest"] if p else None for p in products]
        yield outputs(what, digests, len(clean), known, self.each, self.store)

    def _tried(self, how: ChallengeSetup, clean: ImageSet, count: int) -> float:
        """Return the seconds an image takes of an attack, from a few spread over the set."""
        few = np.unique(np.linspace(0, len(clean) - 1, count).astype(int))
        with step(f"trying {how.name} on {len(few)} images"):
            return timed(lambda: how.make(clean, few), self.experiment.device) / len(few)

    def _outputs(self, what: str, digests: list[str], size: int) -> Planned:
        return outputs(what, digests, size, self.f, self.each, self.store)
