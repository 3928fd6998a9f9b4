"""Plans a run: the cases and steps of it, which of them the store holds, and the time of the rest.

The plan goes over the list of cases that a run evaluates, and asks for the keys that the run would
ask for. Times come from a few steps on this machine, now; where passes depend on choices that are
not made yet, they are counted at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone, digest
from gradbench.backbones.trained_network import TrainedNetwork, find_network, initial_network
from gradbench.backbones.training import estimate_seconds
from gradbench.backbones.workers import Worker
from gradbench.challenges.base import Derived
from gradbench.challenges.other_set import OtherSet
from gradbench.challenges.produce import BATCH, ChallengeSetup
from gradbench.config import compose
from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.imageset import ImageSet, shards, to_float
from gradbench.data.in_distribution import InDistribution
from gradbench.data.roles import stratified_subset
from gradbench.errors import Faulty, GradbenchError, MissingData
from gradbench.methods.base import BANK_EXTRAS, Detector
from gradbench.outputs.extract import shard_key
from gradbench.outputs.perturbed import PerturbedPass, PlannedPass
from gradbench.outputs.read import BATCH as PASS
from gradbench.outputs.read import compute_outputs
from gradbench.run.cases import Case, cases
from gradbench.run.challenge_images import (
    archive_for,
    attack_policy,
    from_archive,
    load_challenge,
    noisy_copies,
    setup,
)
from gradbench.run.context import NetworkContext, check_enough, clean_images, network_request
from gradbench.run.controls import fewer
from gradbench.run.evaluate import evaluate
from gradbench.run.experiment import Cell, Experiment, build_experiment
from gradbench.store import Store
from gradbench.support.progress import step

AT_MOST = "at most; not looked up"
AFTER = "after training"
CHOSEN = "at most: steps are not chosen yet"
ENOUGH = 0.5
"""Seconds of a try that are enough to tell from; no larger one is made."""
TRIED = 10
"""Clean images, at most, on which an attack is timed whose images leave early."""
PATIENCE = 5.0
"""Seconds that this may take, if no image leaves."""


@dataclass(frozen=True)
class PlannedStep:
    """One step of a run.

    Attributes:
        step: images, network, challenge, outputs, perturbed or detector.
        what: the images or the detector that it is for.
        parts: products that it consists of.
        present: those of them that are in the store.
        seconds: estimate for the others.
        note: why there is no estimate, or the step will not be done.
    """

    step: str
    what: str
    parts: int
    present: int
    seconds: float = 0.0
    note: str = ""


def plan(experiment: Experiment, store: Store) -> list[PlannedStep]:
    """Return the steps that take time; fitting and measuring on kept outputs is not listed.

    Nothing is made and nothing downloaded. Where the run would first download the in-distribution
    images, that is the whole plan.

    Raises:
        MissingData: if in-distribution images are not at hand and cannot be downloaded.
    """
    dataset = experiment.dataset
    for role in ("train", "test"):
        if _would_download(dataset, role, experiment):
            reason = dataset.ready(role, experiment.data)
            note = f"{reason}: what comes after cannot be told before"
            return [PlannedStep("images", f"{dataset.name} ({role})", 0, 0, note=note)]
    images = clean_images(experiment, _offline(experiment))
    lines = [
        PlannedStep("detector", name, 0, 0, note=f"will not be measured: {reason}")
        for name, reason in experiment.refused.items()
    ]
    for seed in experiment.seeds:
        lines += _NetworkPlan(experiment, images, seed, store).lines()
    return lines


def forecast(overrides: Sequence[str], dirs: Iterable[Path] = ()) -> tuple[float, list[str]]:
    """Return the seconds of all steps of a run, and what has no estimate or will not be done.

    Args:
        overrides: settings of `gradbench run`.
        dirs: folders of the user's own configuration files.

    Raises:
        GradbenchError: for settings that a run would refuse.
    """
    experiment = build_experiment(compose(overrides, dirs), dirs)
    store = Store(Path(experiment.config["store"]).expanduser())
    try:
        lines = plan(experiment, store)
    except GradbenchError as reason:  # one damaged set leaves the other runs of a plan as they are
        return 0.0, [f"will not be made: {reason}"]
    notes = [f"{line.what}: {line.note}" for line in lines if line.note and not line.parts]
    return sum(line.seconds for line in lines), notes


class _NotInStore(Exception):
    """A product that a run would make."""


class _ReadOnlyStore(Store):
    """A store in which nothing is made, so that evaluating a case tells whether all is there."""

    def make(self, key, build):
        """Return a product that is there."""
        product = self.get(key)
        if product is None:
            raise _NotInStore
        return product

    def lock(self, name: str, what: str):
        """Refuse: outputs of f are computed under a lock, and none shall be."""
        raise _NotInStore


class _NetworkPlan:
    """The plan of one network: the network itself if it is there, one like it otherwise."""

    def __init__(self, experiment: Experiment, images: InDistribution, seed: int, store: Store):
        self.experiment, self.images, self.seed, self.store = experiment, images, seed, store
        self.request = network_request(experiment, images, seed)
        found = find_network(self.request, images.train, store)
        fresh = found or initial_network(self.request, images.train).to(experiment.device).eval()
        self.backbone: Backbone = fresh
        self.trained = found is not None
        weights = digest(found) if found else ""
        f = TrainedNetwork(self.backbone, weights, "", seed, {})
        self.context = NetworkContext(experiment, images, f, seed, _ReadOnlyStore(store.root))
        self.rate = self._seconds_an_image(images.normal, experiment.reads)
        self.measurable: dict[Cell, int] = {}
        """Images of every challenge that will be measured."""

    def lines(self) -> list[PlannedStep]:
        """Return all lines."""
        return [
            self._network(),
            *self._challenges(),
            *self._clean_images(),
            *self._perturbed(),
        ]

    def _network(self) -> PlannedStep:
        what = f"{self.request.config['name']} seed {self.seed}"
        if self.trained:
            note = self.request.config.get("checkpoint") or ""
            return PlannedStep("network", what, 1, 1, 0.0, note)
        recipe, train = self.experiment.recipe, self.images.train
        steps = recipe.epochs * max(len(train) // recipe.batch, 1)
        network = initial_network(self.request, train)
        seconds = estimate_seconds(network, train, recipe, steps, Worker(self.experiment.device))
        return PlannedStep("network", what, 1, 0, seconds, f"{recipe.epochs} epochs")

    def _challenges(self) -> Iterator[PlannedStep]:
        """Yield the lines of the clean images, of every challenge and of its round trips."""
        clean, copied = self.images.normal, set()
        yield self._outputs(clean.name, clean.digests, len(clean))
        for cell in self.experiment.cells:
            lines = list(self._challenge(cell))
            if isinstance(cell.challenge, Derived) and attack_policy(self.experiment, cell)[1]:
                if cell.challenge.noise not in copied:
                    copies = noisy_copies(self.experiment, cell, clean, self.backbone)
                    what = f"{copies.name}, deviation {cell.challenge.noise:g}"
                    lines += self._made(what, copies, {*self.experiment.reads, "logits"})
                copied.add(cell.challenge.noise)
            yield from lines
        trips = {case.cell for case in cases(self.experiment) if case.role == "round_trip"}
        if trips:
            limit = min(self.experiment.config["controls"]["limit"], len(clean))
            seconds = len(trips) * limit * self.rate
            yield PlannedStep(
                "outputs", f"{len(trips)} round trips", len(trips), 0, seconds, AT_MOST
            )

    def _challenge(self, cell: Cell) -> Iterator[PlannedStep]:
        experiment, normal = self.experiment, self.images.normal
        try:
            archive = archive_for(experiment, cell)
            if archive is not None:
                images = from_archive(experiment, cell, archive, self.images, self.store)
            elif isinstance(cell.challenge, Derived):
                self.measurable[cell] = len(normal)
                yield from self._derived(cell)
                return
            else:
                if isinstance(cell.challenge, OtherSet):
                    dataset = experiment.other_dataset(cell.challenge)
                    if _would_download(dataset, "challenge", experiment):
                        note = dataset.ready("challenge", experiment.data)
                        yield PlannedStep("outputs", cell.title, 0, 0, note=note)
                        return
                images = load_challenge(experiment, cell, normal, _offline(experiment)).images
            check_enough(experiment, normal.groups, images.groups)
            digests = images.digests  # which decodes files
        except (MissingData, Faulty) as reason:
            note = f"will not be measured: {reason}"
            yield PlannedStep("outputs", cell.title, 0, 0, note=note)
            return
        self.measurable[cell] = len(images)
        yield self._outputs(cell.title, digests, len(images))

    def _derived(self, cell: Cell) -> Iterator[PlannedStep]:
        if cell.challenge.uses_network and not self.trained:
            clean, passes = self.images.normal, getattr(cell.challenge, "passes", 1)
            count, seconds = len(shards(len(clean))), len(clean) * self.rate
            most = getattr(cell.challenge, "leaves_early", False)
            note = f"at most, {AFTER}" if most else AFTER
            yield PlannedStep("challenge", cell.title, count, 0, passes * seconds, note)
            yield PlannedStep("outputs", cell.title, count, 0, seconds, AFTER)
            return
        made = setup(self.experiment, cell, self.context.f)
        yield from self._made(cell.title, made, self.experiment.reads)

    def _made(self, what: str, made: ChallengeSetup, names: Iterable[str]) -> Iterator[PlannedStep]:
        """Yield the lines of images that are made from the clean ones, and of their outputs."""
        clean = self.images.normal
        products = [self.store.get(key) for key in made.keys(clean)]
        count, present = len(products), sum(p is not None for p in products)
        missing, note = (count - present) * len(clean) / count, ""
        rate = self.rate * getattr(made.challenge, "passes", 1 if made.network else 0.01)
        if missing and getattr(made.challenge, "leaves_early", False):
            few = min(TRIED, len(clean), BATCH, int(PATIENCE / max(rate, 1e-9)))
            if few:
                some = np.unique(np.linspace(0, len(clean) - 1, few).astype(int))
                with step(f"trying {made.name} on {len(some)} images"):
                    rate = _timed(lambda: made.make(clean, some), self.backbone.device) / len(some)
            note = f"from {few} images" if few else "at most"
        yield PlannedStep("challenge", what, count, present, missing * rate, note)
        digests = [p.about["digest"] if p else None for p in products]
        yield self._outputs(what, digests, len(clean), names)

    def _outputs(
        self,
        what: str,
        digests: Sequence[str | None],
        size: int,
        names: Iterable[str] | None = None,
        rate: float | None = None,
    ) -> PlannedStep:
        """Return the line of the outputs of f for images; a digest is None before they are made."""
        outputs = self.context.outputs_of(self.experiment.reads if names is None else names)
        weights = self.context.f.weights
        present = sum(
            self.trained
            and digest is not None
            and all(self.store.has(shard_key(one, weights, digest)) for one in outputs)
            for digest in digests
        )
        rate = self.rate if rate is None else rate
        seconds = (len(digests) - present) * size / len(digests) * rate
        note = "" if self.trained else AFTER
        return PlannedStep("outputs", what, len(digests), present, seconds, note)

    def _clean_images(self) -> Iterator[PlannedStep]:
        """Yield the lines of images that are read and never measured."""
        experiment, images = self.experiment, self.images
        detectors = {name: experiment.detector(name) for name in experiment.detectors}
        roles = {case.role for case in cases(experiment)}
        held, known = images.hold_out, images.provenance
        remembered = "memorisation" in roles and len(held) and known.unseen
        limit = experiment.config["controls"]["limit"]
        for what, part, reads in (
            ("training images", images.train, "bank_reads"),
            (known.hold_out_name, held, "hold_out_reads"),
        ):
            names = {n for d in detectors.values() for n in getattr(d, reads)} - {*BANK_EXTRAS}
            if names and len(part):
                rate = self._seconds_an_image(part, sorted(names))
                yield self._outputs(what, part.digests, len(part), names, rate)
            if remembered:
                some = stratified_subset(part, limit)
                yield self._outputs(f"{what}, for the memorisation", some.digests, len(some))
        if "threshold" in roles:
            some = stratified_subset(held, experiment.config["model"]["hold_out"])
            shared = remembered and len(some) == len(stratified_subset(held, limit))
            if len(some) and not shared:
                what = f"{known.hold_out_name}, for the thresholds"
                yield self._outputs(what, some.digests, len(some))
        for name, detector in detectors.items():
            own = experiment.own_cells(name)
            if own:
                part = stratified_subset(held, detector.synthetic_images)
                seconds = len(part) * (1 + len(own)) * self.rate
                what = f"challenges of {name}"
                yield PlannedStep("outputs", what, len(own), 0, seconds, AT_MOST)

    def _perturbed(self) -> Iterator[PlannedStep]:
        """Yield a line for every detector that perturbs images: one part for each of its cases."""
        own: dict[str, list[Case]] = {}
        for case in cases(self.experiment):
            if case.method in self.experiment.detectors:
                own.setdefault(case.method, []).append(case)
        for name, of_method in own.items():
            detector = self.experiment.detector(name)
            passes = self._planned_passes(detector)
            if not passes:
                continue
            todo = [(c, size) for c in of_method if (size := self._images_of(c, detector))]
            done = [self._is_done(case) for case, _ in todo]
            seconds, seen = 0.0, set()
            for (case, size), present in zip(todo, done):
                if not present:
                    seconds += self._seconds_of_case(case, size, passes, seen)
            learns = detector.learns_from_challenges
            note = CHOSEN if learns and not all(done) else ""
            if not self.trained:
                note = f"at most, {AFTER}"
            what = f"{name}, {len(todo)} cases"
            yield PlannedStep("perturbed", what, len(todo), sum(done), seconds, note)

    def _planned_passes(self, detector: Detector) -> Sequence[PlannedPass]:
        reads = {*detector.reads, *detector.bank_reads}.difference(BANK_EXTRAS)
        names = [output.name for output in self.context.outputs_of(reads)]
        return detector.planned_passes([n for n in names if n.startswith("layer_means/")])

    def _images_of(self, case: Case, detector: Detector) -> tuple[int, int]:
        """Return how many images of the normal and of the abnormal side a case looks at."""
        images, config = self.images, self.experiment.config
        clean = len(images.normal)
        if case.role in ("main", "transfer", "random_split"):
            size = self.measurable.get(case.cell, 0)
            return (clean, size) if size else ()
        if case.role == "round_trip":
            some = min(config["controls"]["limit"], clean)
            return (some, some) if case.cell in self.measurable else ()
        if case.role == "identity":
            return clean, 0  # both sides are the same images
        if case.role == "random_labels":
            return clean // 2, clean - clean // 2
        if case.role == "memorisation":
            if not len(images.hold_out) or not images.provenance.unseen:
                return ()
            limit = config["controls"]["limit"]
            return min(limit, len(images.train)), min(limit, len(images.hold_out))
        some = stratified_subset(images.hold_out, config["model"]["hold_out"])
        return (len(fewer(some)), 0) if len(some) else ()

    def _is_done(self, case: Case) -> bool:
        """Tell whether a run would take everything of a case from the store."""
        if not self.trained:
            return False
        try:
            evaluate(case, self.context)
        except _NotInStore:
            return False
        return True

    def _seconds_of_case(
        self, case: Case, size: tuple[int, int], passes: Sequence[PlannedPass], seen: set
    ) -> float:
        """Return the seconds of the passes of a case, at most; clean images have each pass once."""
        seconds = 0.0
        for planned in passes:
            first, more = self._pass_rate(planned.source)
            count = sum(size)
            clean = (planned.source, planned.steps, id(planned.what))
            if not planned.chosen and clean in seen:
                count -= size[0]
            seen.add(clean)
            if planned.most is not None:
                count = min(count, 2 * planned.most * 5)
            seconds += count * (first + (planned.steps - 1) * more)
        return seconds

    @cache  # noqa: B019 - a plan is short-lived
    def _pass_rate(self, source: str) -> tuple[float, float]:
        """Return the seconds of a pass with one step for an image, and those of each further."""
        images = self.images.normal
        pixels = to_float(images.images[slice(0, min(PASS, len(images)))])
        pixels = pixels.to(self.backbone.device)

        def spent(steps: int) -> float:
            what = PerturbedPass(source, _SquaredLength(), (0.001,) * steps)
            return seconds_each(
                lambda count: what(self.backbone, pixels[:count]), len(pixels), pixels.device
            )

        with step(f"timing perturbed passes to {source}"):
            one, two = spent(1), spent(2)
        return one, max(two - one, 0.0)

    def _seconds_an_image(self, images: ImageSet, names: Sequence[str]) -> float:
        outputs = self.context.outputs_of(names)
        with step(f"timing the outputs of {images.name} {images.split}"):
            return seconds_each(
                lambda count: compute_outputs(self.backbone, images, slice(0, count), outputs),
                min(PASS, len(images)),
                self.backbone.device,
            )


@dataclass(frozen=True)
class _SquaredLength:
    """Half the squared length of an output: a loss as good as any other to be timed."""

    def gradient(self, values: Tensor) -> Tensor:
        """Return the values."""
        return values

    def settings(self) -> Mapping[str, Any]:
        """Return nothing: passes that are timed are not kept."""
        return {}


def seconds_each(work: Callable[[int], object], most: int, device: torch.device) -> float:
    """Return the seconds that a unit takes in a batch, from batches that grow while they are quick.

    One unit goes first without being counted: the first pass of a network looks at its structure.

    Args:
        work: on so many units.
        most: units in the largest batch.
        device: that works.
    """
    work(1)
    count, spent = 1, _timed(lambda: work(1), device)
    while count < most and spent < ENOUGH:
        count = min(most, 2 * count if spent > ENOUGH / 4 else 4 * count)
        spent = _timed(lambda count=count: work(count), device)
    return spent / count


def _timed(work: Callable[[], object], device: torch.device) -> float:
    begun = time.monotonic()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic() - begun


def _offline(experiment: Experiment) -> DataSettings:
    return replace(experiment.data, download=False)


def _would_download(dataset: Dataset, role: str, experiment: Experiment) -> bool:
    """Tell whether a run would download the images of a role."""
    missing = dataset.ready(role, _offline(experiment))
    return bool(missing) and missing != dataset.ready(role, experiment.data)
