"""The passes over perturbed images that a run's detectors ask for, and what they would take.

Which rows have which pass is worked out as `extraction.again` does it. Passes with a step that is
not chosen yet are counted at most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from torch import Tensor

from gradbench.data.imageset import to_float
from gradbench.errors import GradbenchError
from gradbench.methods.base import BANK_EXTRAS, Detector
from gradbench.outputs.extract import shard_key
from gradbench.outputs.perturbed import PerturbedPass, PlannedPass
from gradbench.outputs.read import BATCH
from gradbench.planning.challenges import Challenges
from gradbench.planning.counting import Count, Side
from gradbench.planning.judgements import Judgement, Judgements
from gradbench.planning.planned import AFTER, Planned, each
from gradbench.protocols.presets import Transfer
from gradbench.run.fitting import clean
from gradbench.run.judging import kept_state
from gradbench.support.progress import step

CHOSEN = "at most: steps are not chosen yet"


def lines(challenges: Challenges, seed: int) -> Iterator[Planned]:
    """Yield two lines for every detector that perturbs images: its challenges, then all else.

    Args:
        challenges: of the run, beside one network; their own lines are known.
        seed: that the experiment names for the network.
    """
    judgements = Judgements(challenges, seed)

    @cache
    def first_and_next(source: str) -> tuple[float, float]:
        return _seconds(challenges, source)

    def rate(source: str, steps: int) -> float:
        first, more = first_and_next(source)
        return first + (steps - 1) * more

    for name in challenges.experiment.detectors:
        if _asked(challenges, name):
            yield from _Passes(judgements, name, rate).lines()


class _Passes:
    """The passes of one detector."""

    def __init__(self, judgements: Judgements, name: str, rate):
        self.judgements, self.name, self.rate = judgements, name, rate
        self.challenges = judgements.challenges
        self.detector: Detector = self.challenges.experiment.detector(name)
        self.main = list(judgements.main(name, self.detector))
        self.controls = list(judgements.controls(name, self.detector))
        self.asked = _asked(self.challenges, name, self._bank())

    def lines(self) -> Iterator[Planned]:
        """Yield the line of the challenges and, where there is more, a second one."""
        count = Count(self.rate, self.challenges.f is not None)
        for judgement in self.main:
            self._judged(count, judgement)
        if isinstance(self.challenges.experiment.protocol, Transfer):
            self._across(count)
        yield self._line(f"{len(self.main)} challenges", count)
        rest = replace(count, parts=0, present=0, seconds=0.0)  # what was counted is not again
        for judgement in self.controls:
            self._judged(rest, judgement)
        for side in self.judgements.remembered():
            for place, fitted in list(enumerate(self._fits()))[:1]:
                self._scored(rest, side, fitted, place)
        for side in self.judgements.thresholds():
            for place, fitted in enumerate(self._fits()):
                self._scored(rest, side, fitted, place)
        if rest.parts:
            yield self._line("controls and thresholds", rest)

    def _judged(self, count: Count, judgement: Judgement) -> None:
        if not self.detector.learns_from_challenges:
            for side in judgement.sides:
                self._scored(count, side, self.asked, judgement.title)
            return
        groups = (side.again.images.groups for side in judgement.sides)
        try:
            folds = judgement.protocol.folds(*groups, self.judgements.seed)
        except GradbenchError:
            return  # which the run will say
        done = judgement.product is not None
        count.folds(judgement.sides, folds, self.asked, judgement.title, done)

    def _across(self, count: Count) -> None:
        """Count what is fitted on one challenge and scores the others."""
        if not self.detector.learns_from_challenges:
            return
        for fitted in self.main:
            for judgement in self.main:
                if fitted is not judgement:
                    for side in judgement.sides:
                        self._scored(count, side, self.asked, (fitted.title, judgement.title))

    def _scored(self, count: Count, side: Side, asked: Sequence[PlannedPass], label: Any) -> None:
        rows = np.arange(len(side.again.images))
        for further in asked:
            if further.part == "measure":
                known = None if further.what is None else further.what.source
                count.rows(side, rows, further, (label, further.source, known))

    def _fits(self) -> list[Sequence[PlannedPass]]:
        """Return what each fitted detector asks for of images that it scores."""
        if not self.detector.learns_from_challenges:
            return [self.asked]
        found = []
        for judgement in self.main:
            state = kept_state(judgement.product) if judgement.product else {}
            if state:
                fitted = self.challenges.experiment.detector(self.name).load(state)
                found.append([PlannedPass("measure", what.source, len(what.magnitudes), what=what)
                              for what in fitted.perturbed_passes.values()])  # fmt: skip
            else:
                found.append(self.asked)
        return found

    def _bank(self) -> Mapping[str, Tensor] | None:
        """Return what is fitted to the training images, where it is wanted and all of it there."""
        challenges = self.challenges
        f, images = challenges.f, challenges.images.train
        if f is None or not self.detector.bank_reads:
            return None
        if all(judgement.product for judgement in (*self.main, *self.controls)):
            return None
        names = {*self.detector.bank_reads}.difference(BANK_EXTRAS)
        reads = challenges.experiment.outputs.of_network(f.backbone, names)
        keys = (shard_key(one, f.weights, digest) for one in reads for digest in images.digests)
        if not all(challenges.store.has(key) for key in keys):
            return None
        return clean(self.judgements.trial, self.name).bank

    def _line(self, of: str, count: Count) -> Planned:
        learns = self.detector.learns_from_challenges
        note = CHOSEN if learns and count.present < count.parts else ""
        if self.challenges.f is None:
            note = f"at most, {AFTER}" if learns else AFTER
        what = f"{self.name}, {of}"
        return Planned("perturbed", what, count.parts, count.present, count.seconds, note)


def _asked(challenges: Challenges, name: str, bank=None) -> Sequence[PlannedPass]:
    """Return the planned passes of a detector, see `Detector.planned_passes`."""
    detector = challenges.experiment.detector(name)
    reads = {*detector.reads, *detector.bank_reads}.difference(BANK_EXTRAS)
    outputs = challenges.experiment.outputs.of_network(challenges.backbone, reads)
    names = [output.name for output in outputs]
    return detector.planned_passes([n for n in names if n.startswith("layer_means/")], bank)


def _seconds(challenges: Challenges, source: str) -> tuple[float, float]:
    """Return what a pass with one step takes of an image, and what each further step adds."""
    images = challenges.images.normal
    pixels = to_float(images.images[slice(0, min(BATCH, len(images)))])
    pixels = pixels.to(challenges.backbone.device)
    device, f = challenges.experiment.device, challenges.backbone

    def spent(steps: int) -> float:
        what = PerturbedPass(source, _Itself(), (0.001,) * steps)
        return each(lambda count: what(f, pixels[:count]), len(pixels), device)

    with step(f"timing perturbed passes to {source}"):
        one, two = spent(1), spent(2)
    return one, max(two - one, 0.0)


@dataclass(frozen=True)
class _Itself:
    """Half the squared length of an output: a loss as good as any other to be timed."""

    def gradient(self, values: Tensor) -> Tensor:
        """Return the values."""
        return values

    def settings(self) -> Mapping[str, Any]:
        """Return nothing: what is timed is not kept."""
        return {}
