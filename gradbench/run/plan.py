"""Plans a run: evaluates its cases on a store in which nothing is made, and estimates the rest.

A plan asks for the products that the run would ask for, because it evaluates the same cases; what
is missing ends a case and becomes a step with an estimate. Times come from a few passes on this
machine, now; where passes depend on choices that are not made yet, they are counted at most.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradbench.backbones.backbone import digest
from gradbench.backbones.trained_network import (
    NetworkRequest,
    TrainedNetwork,
    find_network,
    initial_network,
)
from gradbench.backbones.training import estimate_seconds
from gradbench.backbones.workers import Worker
from gradbench.challenges.base import Derived
from gradbench.challenges.other_set import OtherSet
from gradbench.challenges.produce import BATCH, ChallengeSetup
from gradbench.config import compose
from gradbench.data.dataset import Dataset
from gradbench.data.imageset import ImageSet, shards, to_float
from gradbench.data.in_distribution import InDistribution
from gradbench.data.roles import stratified_subset
from gradbench.errors import Faulty, GradbenchError, MissingData
from gradbench.methods.base import Method, outputs_among
from gradbench.outputs.base import Output
from gradbench.outputs.extract import OutputValues, shard_key
from gradbench.outputs.learned import with_learned
from gradbench.outputs.perturbed import PerturbedPass, PlannedPass
from gradbench.outputs.read import BATCH as PASS
from gradbench.outputs.read import compute_outputs
from gradbench.run.cases import Case, cases
from gradbench.run.challenge_images import ChallengeImages, attack_policy, noisy_copies, setup
from gradbench.run.context import ImagesWithOutputs, NetworkContext, clean_images, network_request
from gradbench.run.evaluate import FEWER, evaluate
from gradbench.run.experiment import Cell, Experiment, build_experiment
from gradbench.store import Key, Store
from gradbench.support.progress import step

AT_MOST = "at most; not looked up"
AFTER = "after training"
CHOSEN = "at most: steps are not chosen yet"
ENOUGH = 0.5
"""Seconds of a try that are enough to tell from; no larger one is made."""
TRIED = 10
"""Clean images, at most, on which an attack is timed whose images leave early, or learned from."""
PATIENCE = 5.0
"""Seconds that this may take, if no image leaves."""


@dataclass(frozen=True)
class PlannedStep:
    """One step of a run: images, network, challenge, outputs, perturbed (passes) or detector.

    Attributes:
        what: the images or the detector that it is for.
        parts: products that it consists of; those `present` are in the store.
        seconds: estimate for the others.
        note: why there is no estimate, or the step will not be done.
    """

    step: str
    what: str
    parts: int = 0
    present: int = 0
    seconds: float = 0.0
    note: str = ""


def plan(experiment: Experiment, store: Store) -> list[PlannedStep]:
    """Return the steps that take time; fitting and measuring on kept outputs is not listed.

    Nothing is made and nothing downloaded. Where the run would first download the in-distribution
    images, that is the whole plan.

    Raises:
        MissingData: if in-distribution images are not at hand and cannot be downloaded.
    """
    data = {**experiment.config["data"], "download": False}
    offline = replace(experiment, config={**experiment.config, "data": data})
    dataset = experiment.dataset
    for role in ("train", "test"):
        if reason := _download(dataset, role, experiment, offline):
            note = f"{reason}: what comes after cannot be told before"
            return [PlannedStep("images", f"{dataset.name} ({role})", note=note)]
    images = clean_images(offline)
    lines = [
        PlannedStep("detector", name, note=f"will not be measured: {reason}")
        for name, reason in experiment.refused.items()
    ]
    comparing, seeds = bool(experiment.comparing), experiment.seeds
    members = [_network(experiment, images, s, store)[0] for s in seeds if comparing]
    for seed in seeds:
        lines += _network_plan(experiment, offline, images, seed, store, members)
    return lines


def forecast(overrides: Sequence[str], dirs: Iterable[Path] = ()) -> tuple[float, list[str]]:
    """Return the seconds of all steps of a run, and what has no estimate or will not be done.

    Raises:
        GradbenchError: for settings of `gradbench run` that a run would refuse.
    """
    experiment = build_experiment(compose(overrides, dirs), dirs)
    try:
        lines = plan(experiment, Store(Path(experiment.settings.store).expanduser()))
    except GradbenchError as reason:  # one damaged set leaves the other runs of a plan as they are
        return 0.0, [f"will not be made: {reason}"]
    notes = [f"{line.what}: {line.note}" for line in lines if line.note and not line.parts]
    return sum(line.seconds for line in lines), notes


class _NotInStore(Exception):
    """A product that a run would make."""

    def __init__(self, step_name: str = ""):
        super().__init__(step_name)
        self.step = step_name


class _ReadOnlyStore(Store):
    """A store in which nothing is made."""

    def make(self, key: Key, build):
        """Return a product that is there."""
        product = self.get(key)
        if product is None:
            raise _NotInStore(key.step)
        return product

    def lock(self, name: str, what: str):
        """Refuse: outputs of f are computed under a lock, and none shall be."""
        raise _NotInStore("outputs")


class _Unread(OutputValues):
    """Outputs that a run would read off f; whoever needs their values cannot go on."""

    def __missing__(self, name: str) -> Tensor:
        raise _NotInStore("outputs")

    def select(self, rows) -> OutputValues:
        return self

    def join(self, other: OutputValues) -> OutputValues:
        return self


def _network(
    experiment: Experiment, images: InDistribution, seed: int, store: Store
) -> tuple[TrainedNetwork, NetworkRequest]:
    """Return a network if it is there, one like it without a digest otherwise."""
    request = network_request(experiment, images, seed)
    trained = find_network(request, images.train, store)
    network = trained or initial_network(request, images.train).to(experiment.device).eval()
    return TrainedNetwork(network, digest(trained) if trained else "", "", seed, {}), request


def _network_plan(
    experiment: Experiment,
    offline: Experiment,
    images: InDistribution,
    seed: int,
    store: Store,
    members: Sequence[TrainedNetwork],
) -> list[PlannedStep]:
    """Return the steps of one network: of itself if it is there, of one like it otherwise."""
    f, request = _network(experiment, images, seed, store)
    context = _PlanContext(offline, images, f, seed, _ReadOnlyStore(store.root), members=members)
    title, seconds = f"{request.config['name']} seed {seed}", 0.0
    note = request.config.get("checkpoint") or ""
    if not f.weights:
        recipe, train = experiment.recipe, images.train
        steps = recipe.epochs * max(len(train) // recipe.batch, 1)
        worker, untrained = Worker(experiment.device), initial_network(request, train)
        seconds = estimate_seconds(untrained, train, recipe, steps, worker)
        note = f"{recipe.epochs} epochs"
    line = PlannedStep("network", title, 1, int(bool(f.weights)), seconds, note)
    return [line, *context.plan(experiment)]


@dataclass(eq=False)
class _PlanContext(NetworkContext):
    """A network whose outputs and challenges are looked up, and listed where they are missing."""

    lines: dict[Hashable, PlannedStep] = field(default_factory=dict, init=False)
    sizes: dict[Cell, int] = field(default_factory=dict, init=False)
    """Images of every challenge that will be measured."""
    _case: Case | None = field(default=None, init=False)
    """The one that is being evaluated, which names images that are made for it alone."""

    @property
    def after(self) -> str:
        """A note where the network is not trained yet."""
        return "" if self.f.weights else AFTER

    def plan(self, experiment: Experiment) -> list[PlannedStep]:
        """Return the steps of all cases."""
        self._note_lessons()
        self.note_outputs(self.images.normal, self.experiment.reads)
        for cell in self.experiment.cells:
            self._note_challenge(cell, experiment)
        results: dict[str, list[tuple[Case, bool]]] = {}
        for case in cases(self.experiment):
            done, self._case = True, case
            try:
                result = evaluate(case, self)
                if result is None or result.fault:
                    continue  # nothing is measured
            except _NotInStore as missing:
                done = False
                if missing.step == "round_trip":
                    size = min(self.experiment.settings.controls.limit, len(self.images.normal))
                    self._note("outputs", f"round trip of {case.cell.title}", size, note=AT_MOST)
            results.setdefault(case.method, []).append((case, done))
        undone = [name for name, of in results.items() if not all(done for _, done in of)]
        self._note_clean_images([self.experiment.detector(name) for name in undone], undone)
        return [*self.lines.values(), *self._perturbed(results)]

    def read_outputs(
        self, images: ImageSet, names: Iterable[str] | None = None, also: Iterable[str] = ()
    ) -> ImagesWithOutputs:
        """Read outputs that are kept, and list those that are not."""
        reads = set(self.experiment.reads if names is None else names)
        if self._kept(images.digests, reads) == len(images.digests):
            self.note_outputs(images, reads)
            return super().read_outputs(images, names)
        self.note_outputs(images, reads.union(also))
        return ImagesWithOutputs(images, _Unread())

    def note_outputs(self, images: ImageSet, reads: Iterable[str]) -> None:
        """List the outputs of images."""
        of_cell = images.name in [cell.title for cell in self.experiment.cells]
        title = images.name if of_cell else f"{images.name} {images.split}".strip()
        if images.split == self.images.hold_out.split != self.images.normal.split:
            title = self.images.provenance.hold_out_name
        if self._case and self._case.role == "round_trip" and images.status == "generated":
            title = f"round trip of {self._case.cell.title}"
        present = self._kept(images.digests, reads)
        self._note("outputs", title, len(images), present, reads, images.digests)

    def _kept(self, digests: Iterable[str | None], reads: Iterable[str]) -> int:
        """Return how many shards have all their outputs in the store."""
        outputs, weights = self.outputs_of(reads), self.f.weights
        return sum(
            one is not None and all(self.store.has(shard_key(o, weights, one)) for o in outputs)
            for one in digests
        )

    def _note_lessons(self) -> None:
        """List what outputs learn from training images before they are read."""
        for output in self.outputs_of(self.experiment.reads):
            if not output.learns_from:
                continue
            size = min(output.learns_from, len(self.images.train))
            present, seconds = self.store.has(self.lessons.key(output)), 0.0
            if not present and self._taught_a_little(output):
                some = (f"what {output.name} learns", output.name)
                seconds = size * self._seconds_each(some, partial(self._tried_lesson, output))
            what = f"{output.name}, {size} images"
            line = PlannedStep("learned", what, 1, int(present), seconds, self.after)
            self.lines["learned", output.name] = line

    def _taught_a_little(self, output: Output) -> Output | None:
        """Return an output that has learned from a few images, as far as it learns, to time it.

        None for one of the user's own that cannot.
        """

        def few() -> Output | None:
            with contextlib.suppress(Faulty):
                learned = self._tried_lesson(output, TRIED)
                return with_learned(output, learned, output.learned_key)
            return None

        return self.once(("tried", output.name), few) if output.learns_from else output

    def _tried_lesson(self, output: Output, count: int) -> dict[str, Tensor]:
        """Return what an output learns from a few training images; nothing is kept."""
        return self.lessons.learn(output, stratified_subset(self.images.train, count))

    def _note(
        self,
        kind: str,
        title: str,
        size: int,
        present: int = 0,
        reads: Iterable[str] = (),
        key: Iterable[str] = (),
        note: str = "",
    ) -> None:
        """List a step of so many images, of which some shards are there; equal ones once."""
        parts = len(shards(size))
        missing = size * (parts - present) / max(parts, 1)
        rate = self._rate(tuple(sorted(reads or self.experiment.reads))) if missing else 0.0
        what = f"{title}, {size} images"
        line = PlannedStep(kind, what, parts, present, missing * rate, self.after or note)
        place = (kind, *key) if key else (kind, title)
        if place not in self.lines or self.lines[place].seconds < line.seconds:
            self.lines[place] = line

    def _note_challenge(self, cell: Cell, experiment: Experiment) -> None:
        """List the images of a challenge and their outputs, or why it will not be measured."""
        challenge, size = cell.challenge, len(self.images.normal)
        try:
            if isinstance(challenge, OtherSet):
                dataset = self.experiment.other_dataset(challenge)
                if reason := _download(dataset, "challenge", experiment, self.experiment):
                    self.lines[cell] = PlannedStep("outputs", cell.title, note=reason)
                    self.known["missing", cell] = MissingData, reason
                    return
            if isinstance(challenge, Derived) and attack_policy(self.experiment, cell)[1]:
                with contextlib.suppress(_NotInStore):
                    self._noisy_copies(cell)
            size = len(self.sides(cell).abnormal.images)
        except _NotInStore:
            pass
        except (MissingData, Faulty) as reason:
            note = f"will not be measured: {reason}"
            self.lines[cell] = PlannedStep("outputs", cell.title, note=note)
            return
        self.sizes[cell] = size

    def _challenge_images(self, cell: Cell) -> ChallengeImages:
        if isinstance(cell.challenge, Derived) and cell in self.experiment.cells:
            self._look_up(setup(self.experiment, cell, self.f), self.experiment.reads)
        return super()._challenge_images(cell)

    def _noisy_copies(self, cell: Cell) -> ImagesWithOutputs:
        made = noisy_copies(self.experiment, cell, self.images.normal, self.f.backbone)
        self._look_up(made, sorted({*self.experiment.reads, "logits"}))
        return super()._noisy_copies(cell)

    def _look_up(self, made: ChallengeSetup, reads: Sequence[str]) -> None:
        """List the images that are made from the clean ones; where some are missing, their outputs.

        Raises:
            _NotInStore: if some are missing.
        """
        clean = self.images.normal
        keys = made.keys(clean)
        place = ("challenge", *(key.digest for key in keys))
        if place in self.lines and self.lines[place].present < len(keys):
            raise _NotInStore("challenge")  # listed for another case
        products = [self.store.get(key) for key in keys]
        count, present = len(products), sum(p is not None for p in products)
        seconds, note = 0.0, self.after if made.challenge.uses_network else ""
        if present < count:
            rate = self._rate(tuple(self.experiment.reads))
            rate *= getattr(made.challenge, "passes", 1 if made.network else 0.01)
            if getattr(made.challenge, "leaves_early", False):
                note = f"at most, {AFTER}" if note else "at most"
                few = min(TRIED, len(clean), BATCH, int(PATIENCE / max(rate, 1e-9)))
                if few and not self.after:
                    rate, note = self._tried(made, few), f"from {few} images"
            seconds = rate * len(clean) * (count - present) / count
        what = f"{made.name}, {len(clean)} images"
        self.lines[place] = PlannedStep("challenge", what, count, present, seconds, note)
        if present < count:
            kept = self._kept([p and p.about["digest"] for p in products], reads)
            self._note("outputs", made.name, len(clean), kept, reads, place)
            raise _NotInStore("challenge")

    def _tried(self, made: ChallengeSetup, few: int) -> float:
        """Return the seconds of an image by trying the challenge on a few of them."""
        clean = self.images.normal
        rows = np.unique(np.linspace(0, len(clean) - 1, few).astype(int))
        with step(f"trying {made.name} on {len(rows)} images"):
            return _timed(lambda: made.make(clean, rows), self.f.backbone.device) / len(rows)

    def _note_clean_images(self, detectors: Sequence[Method], names: Sequence[str]) -> None:
        """List the outputs of images that detectors are fitted on and that are never measured."""
        images = self.images
        for count in {one.bank_images: None for one in detectors}:
            alike = [one for one in detectors if one.bank_images == count]
            reads = outputs_among({read for one in alike for read in one.bank_reads})
            if reads:
                self.note_outputs(stratified_subset(images.train, count), reads)
        reads = outputs_among({read for one in detectors for read in one.hold_out_reads})
        if reads and len(images.hold_out):
            self.note_outputs(images.hold_out, reads)
        for name, detector in zip(names, detectors):
            if own := self.experiment.own_cells(name):
                size = min(detector.synthetic_images, len(images.hold_out))
                size *= 1 + len(own)
                self._note("outputs", f"challenges of {name}", size, note=AT_MOST)

    def _perturbed(self, results: Mapping[str, list[tuple[Case, bool]]]) -> Iterator[PlannedStep]:
        """Yield a line for every detector that perturbs images: one part for each of its cases."""
        for name, of_method in results.items():
            detector = self.experiment.detector(name)
            reads = outputs_among({*detector.reads, *detector.bank_reads})
            layers = [o.name for o in self.outputs_of(reads) if o.name.startswith("layer_means/")]
            passes = detector.planned_passes(layers)
            if not passes:
                continue
            seconds, seen = 0.0, set()
            for case, done in of_method:
                seconds += 0.0 if done else self._seconds_of_case(case, passes, seen)
            done = [is_done for _, is_done in of_method]
            note = "" if all(done) or not detector.learns_from_challenges else CHOSEN
            note = f"at most, {AFTER}" if self.after else note
            what = f"{name}, {len(done)} cases"
            yield PlannedStep("perturbed", what, len(done), sum(done), seconds, note)

    def _seconds_of_case(self, case: Case, passes: Sequence[PlannedPass], seen: set) -> float:
        """Return the seconds of the passes of a case, at most; clean images have each pass once."""
        images, limit = self.images, self.experiment.settings.controls.limit
        clean, held = len(images.normal), len(images.hold_out)
        normal, abnormal = {
            "identity": (clean, 0),  # both sides are the same images
            "random_labels": (clean // 2, clean - clean // 2),
            "round_trip": (min(limit, clean), min(limit, clean)),
            "memorisation": (min(limit, len(images.train)), min(limit, held)),
            "threshold": (min(FEWER, held), 0),
        }.get(case.role, (clean, self.sizes.get(case.cell, 0)))
        seconds = 0.0
        for planned in passes:
            first, more = self._pass_rate(planned.source)
            known = (planned.source, planned.steps, id(planned.what)) in seen
            count = abnormal + (0 if known and not planned.chosen else normal)
            seen.add((planned.source, planned.steps, id(planned.what)))
            if planned.most is not None:
                count = min(count, 2 * planned.most * 5)  # of both sides, in five folds
            seconds += count * (first + (planned.steps - 1) * more)
        return seconds

    def _pass_rate(self, source: str) -> tuple[float, float]:
        """Return the seconds of a pass with one step for an image, and those of each further."""
        f, images = self.f.backbone, self.images.normal
        pixels = to_float(images.images[slice(0, min(PASS, len(images)))]).to(f.device)

        def rate(steps: int) -> float:
            one = PerturbedPass(source, _SquaredLength(), (0.001,) * steps)
            key = (f"perturbed passes to {source}", steps)
            return self._seconds_each(key, lambda count: one(f, pixels[:count]))

        return rate(1), max(rate(2) - rate(1), 0.0)

    def _rate(self, reads: tuple[str, ...]) -> float:
        """Return the seconds in which outputs of an image are read off f."""
        f, images, outputs = self.f.backbone, self.images.normal, self.outputs_of(reads)

        def work(count: int) -> None:
            ready = [self._taught_a_little(output) for output in outputs]
            compute_outputs(f, images, slice(0, count), filter(None, ready))

        return self._seconds_each((f"the outputs of {images.name} {images.split}", reads), work)

    def _seconds_each(self, key: tuple[str, Any], work: Callable[[int], object]) -> float:
        """Return the seconds that work on so many images takes for one; timed once for a key."""
        most, device = min(PASS, len(self.images.normal)), self.f.backbone.device

        def seconds() -> float:
            with step(f"timing {key[0]}"):
                work(1)  # not counted: the first pass of a network looks at its structure
                count, spent = 1, _timed(partial(work, 1), device)
                # images in large batches are quicker, and slow ones are not waited for
                while count < most and spent < ENOUGH:
                    count = min(most, 2 * count if spent > ENOUGH / 4 else 4 * count)
                    spent = _timed(partial(work, count), device)
            return spent / count

        return self.once(("seconds", *key), seconds)


@dataclass(frozen=True)
class _SquaredLength:
    """Half the squared length of an output: a loss as good as any other to be timed."""

    def gradient(self, values: Tensor) -> Tensor:
        return values

    def settings(self) -> Mapping[str, Any]:
        return {}


def _timed(work: Callable[[], object], device: torch.device) -> float:
    begun = time.monotonic()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic() - begun


def _download(dataset: Dataset, role: str, experiment: Experiment, offline: Experiment) -> str:
    """Return why a run would download the images of a role, empty where it would not."""
    reason = dataset.ready(role, experiment.data)
    missing = dataset.ready(role, offline.data)
    return reason if missing and missing != reason else ""
