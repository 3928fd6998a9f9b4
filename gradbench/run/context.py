"""One network with the images that it is measured on, and the outputs that are read off it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from gradbench.backbones.checkpoint import read_checkpoint
from gradbench.backbones.published import PUBLISHED
from gradbench.backbones.recipe import resolve_precision
from gradbench.backbones.trained_network import (
    NetworkRequest,
    TrainedNetwork,
    trained_fingerprints,
)
from gradbench.backbones.workers import WorkerPool
from gradbench.challenges.base import Derived
from gradbench.challenges.controls import Identity
from gradbench.challenges.produce import produce
from gradbench.data.imageset import ImageSet, join, join_notes
from gradbench.data.in_distribution import (
    ALL,
    WITHOUT_HOLD_OUT,
    InDistribution,
    TrainingRecord,
    load_in_distribution,
    read_source_ids,
)
from gradbench.errors import Faulty, GradbenchError, MissingData
from gradbench.methods.base import learned_among
from gradbench.outputs.base import Output
from gradbench.outputs.cached_passes import CachedPasses
from gradbench.outputs.distributed import DistributedReader
from gradbench.outputs.extract import OutputValues, extract
from gradbench.outputs.learned import Lessons
from gradbench.protocols.base import Fold, Protocol
from gradbench.run.challenge_images import (
    ChallengeImages,
    attack_policy,
    load_challenge,
    noisy_copies,
    published,
    setup,
)
from gradbench.run.experiment import Cell, Experiment
from gradbench.run.full_spectrum import shifted_images
from gradbench.store import Store, canonical_json
from gradbench.support.code_keys import code_key
from gradbench.support.progress import step


@dataclass(frozen=True)
class ImagesWithOutputs:
    """Images together with the outputs of f for them, by name, each (N, ...)."""

    images: ImageSet
    outputs: OutputValues

    def select(self, rows: np.ndarray) -> ImagesWithOutputs:
        """Return the given rows of both."""
        return ImagesWithOutputs(self.images.select(rows), self.outputs.select(rows))

    def join(self, other: ImagesWithOutputs) -> ImagesWithOutputs:
        """Return both, these first."""
        outputs = self.outputs.join(other.outputs)
        return ImagesWithOutputs(join(self.images, other.images), outputs)


@dataclass(frozen=True)
class Sides:
    """The two sides of a measurement, and the whole challenge that the abnormal one is taken of."""

    normal: ImagesWithOutputs
    abnormal: ImagesWithOutputs
    challenge: ChallengeImages


@dataclass(eq=False)
class NetworkContext:
    """One network of an experiment, and all that is read off it.

    It keeps what several cases need; none of that depends on which case asked first.

    Attributes:
        images: the clean images by role.
        seed: that the experiment names for the network.
        pool: workers that read f; None to do it in this process.
        members: all networks of the run, f among them, where a detector reads them.
        faults: why challenges from outside cannot be measured, by name: they failed the identity
            control.
        known: results of cases; why detectors from outside cannot be fitted, by ("fault", name),
            and challenges not be measured, by ("missing", cell); groups of both sides of
            challenges that were fitted on, by ("groups", cell); keys of fits, by ("fit", name).
    """

    experiment: Experiment
    images: InDistribution
    f: TrainedNetwork
    seed: int
    store: Store
    pool: WorkerPool | None = None
    members: Sequence[TrainedNetwork] = ()
    faults: dict[str, str] = field(default_factory=dict)
    known: dict[Any, Any] = field(default_factory=dict, init=False)
    _challenges: dict[Cell, ChallengeImages] = field(default_factory=dict, init=False)
    _sides: dict[Cell, Sides] = field(default_factory=dict, init=False)
    _folds: dict[str, list[Fold]] = field(default_factory=dict, init=False)

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the value of a key in `known`, made where it is missing."""
        if key not in self.known:
            self.known[key] = make()
        return self.known[key]

    @cached_property
    def reader(self) -> DistributedReader | None:
        """The workers, as readers of f."""
        return self.pool and DistributedReader(self.pool, self.f.backbone, self.f.weights)

    @cached_property
    def lessons(self) -> Lessons:
        """The training images, from which outputs of f may learn."""
        return Lessons(self.f.backbone, self.f.weights, self.images.train, self.store)

    @cached_property
    def accuracy(self) -> float:
        """Share of the normal images whose class f names, in [0, 1].

        Its logits are those that detectors read, kept by shards; where they are not there yet, all
        else that detectors score is read in the same passes.
        """
        images = self.images.normal
        logits = self.read_outputs(images, ["logits"], self.experiment.reads).outputs["logits"]
        return float((logits.argmax(1).numpy() == images.labels).mean())

    @cached_property
    def normal(self) -> ImagesWithOutputs:
        """The normal side of every measurement."""
        return self.read_outputs(self.images.normal)

    @cached_property
    def shifted(self) -> ImagesWithOutputs | None:
        """Shifted images that the protocol counts as normal too, None where it does not."""
        benchmark = self.experiment.benchmark
        if benchmark is None or benchmark.shifted is None:
            return None
        return self.read_outputs(
            shifted_images(self.experiment, benchmark.shifted, self.images, self.store)
        )

    def read_outputs(
        self, images: ImageSet, names: Iterable[str] | None = None, also: Iterable[str] = ()
    ) -> ImagesWithOutputs:
        """Read outputs of f for images: all that the detectors score, or those named.

        Where that takes a pass, the outputs `also` are kept of it for those who ask later.
        """
        wanted = self.outputs_of(self.experiment.reads if names is None else names)
        f, store, also = self.f, self.store, self.outputs_of(also)
        values = extract(
            f.backbone, f.weights, images, wanted, store, also, self.reader, self.lessons
        )
        return ImagesWithOutputs(images, values)

    def outputs_of(self, names: Iterable[str]) -> list[Output]:
        """Return the outputs of f with these names, one for each layer of `layer_means`.

        Those that learn have learned nothing yet: `lessons` teaches them.
        """
        found = self.experiment.outputs.of_network(self.f.backbone, names)
        members = [(one.backbone, one.weights) for one in self.members]
        return self.lessons.named([output.of_members(members) for output in found])

    def learned(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Return tensors that outputs of f learned, `learned/<output>/<tensor>`, among names."""
        of_outputs = learned_among(names)
        outputs = self.outputs_of(of_outputs.values())
        return self.lessons.tensors(of_outputs, outputs)

    def passes(self, images: ImageSet) -> CachedPasses:
        """Return the perturbed passes over images, for detectors that ask for them."""
        f, seed = self.f, self.experiment.evaluation.seed
        return CachedPasses(f.backbone, f.weights, images, self.store, seed, self.reader)

    def challenge(self, cell: Cell) -> ChallengeImages:
        """Return the images of a challenge.

        Raises:
            MissingData: if images of another dataset are not at hand.
            Faulty: if its class is from outside and does not do what a challenge must.
        """
        return self._latest(self._challenges, cell, self._challenge_images)

    def _challenge_images(self, cell: Cell) -> ChallengeImages:
        experiment, images = self.experiment, self.images
        if cell.name in self.faults:
            raise Faulty(self.faults[cell.name])
        if isinstance(cell.challenge, Identity):  # as they are: pixels of a caller need no grid
            clean = replace(images.normal, name=cell.title, status=Identity.status, note="")
            return ChallengeImages(clean)
        from_archive = published(experiment, cell, images, self.store)
        if from_archive is not None:
            return ChallengeImages(from_archive)
        if isinstance(cell.challenge, Derived):
            made = setup(experiment, cell, self.f)
            return ChallengeImages(*produce(made, images.normal, self.store))
        return load_challenge(experiment, cell, images.normal)

    def sides(self, cell: Cell) -> Sides:
        """Return both sides of a challenge with their outputs; see `challenge_images`.

        The last two challenges are kept: a transfer needs the images of both at once.

        Raises:
            MissingData: if there are too few images to be measured, or too few of an attack kept.
            Faulty: see `challenge`.
        """
        if ("missing", cell) in self.known:  # what every case of the challenge would find again
            kind, text = self.known["missing", cell]
            raise kind(text)
        try:
            return self._latest(self._sides, cell, self._both_sides)
        except (MissingData, Faulty) as reason:
            # its text alone: the exception would hold the images in memory
            self.known["missing", cell] = type(reason), str(reason)
            raise

    def folds(self, protocol: Protocol, normal: ImageSet, abnormal: ImageSet) -> list[Fold]:
        """Return the folds of a protocol, which are the same for all detectors of a challenge."""
        settings = {**protocol.settings(), **code_key(protocol)}
        key = canonical_json([settings, normal.fingerprint, abnormal.fingerprint])
        groups, seed = (normal.groups, abnormal.groups), self.experiment.evaluation.seed
        return self._latest(self._folds, key, lambda _: protocol.folds(*groups, seed))

    def _latest(self, kept: dict, key: Hashable, make: Callable[[Any], Any]) -> Any:
        if key not in kept:
            value = make(key)
            if len(kept) > 1:  # images of all challenges at once would not fit into memory
                del kept[next(iter(kept))]
            kept[key] = value
        return kept[key]

    def _both_sides(self, cell: Cell) -> Sides:
        experiment, made = self.experiment, self.challenge(cell)
        keep, noisy = attack_policy(experiment, cell)
        if made.attack is None or (keep == "all" and not noisy):
            if not isinstance(cell.challenge, Derived):
                check_enough(experiment, self.images.normal.groups, made.images.groups)
            shifted = self.shifted
            if shifted is None:
                return Sides(self.normal, self.read_outputs(made.images), made)
            remark = f"{len(shifted.images):,} of the normal images are shifted"
            note = join_notes(made.images.note, f"{remark} ({shifted.images.note})")
            abnormal = self.read_outputs(replace(made.images, note=note))
            return Sides(self.normal.join(shifted), abnormal, made)
        attack, remarks = made.attack, []
        kept = attack.success if keep == "successful" else np.ones(len(made.images), bool)
        copies = self._noisy_copies(cell) if noisy else None
        if copies is not None and keep == "successful":
            right = copies.outputs["logits"].argmax(1).numpy() == copies.images.labels
            kept = kept & right
        rows = np.flatnonzero(kept)
        if keep == "successful":
            also = " and is right on their noisy copies" if noisy else ""
            remarks.append(
                f"{len(rows)} images that f errs on only after the attack{also} are kept, of "
                f"{int(attack.correct.sum())} classified correctly and {len(attack.correct)} "
                "attempted"
            )
        groups = self.images.normal.groups[rows]
        check_enough(experiment, groups, groups, *remarks)
        normal, abnormal = self.normal.select(rows), self.read_outputs(made.images).select(rows)
        if copies is not None:
            normal = normal.join(copies.select(rows))
            remarks.append(
                "normal images are clean ones and their noisy copies (deviation "
                f"{cell.challenge.noise:g} in normalised space)"
            )
        images = replace(abnormal.images, note=join_notes(abnormal.images.note, *remarks))
        return Sides(normal, ImagesWithOutputs(images, abnormal.outputs), made)

    def _noisy_copies(self, cell: Cell) -> ImagesWithOutputs:
        clean = self.images.normal
        copies = noisy_copies(self.experiment, cell, clean, self.f.backbone)
        images, _ = produce(copies, clean, self.store)
        return self.read_outputs(images, {*self.experiment.reads, "logits"})


def check_enough(
    experiment: Experiment, normal: np.ndarray, abnormal: np.ndarray, note: str = ""
) -> None:
    """Refuse a measurement on images of these groups, (N,) and (M,), if they are too few.

    Raises:
        MissingData: with the counts; `note` says why there are so few, else the protocol does.
    """
    try:
        experiment.protocol.folds(normal, abnormal, experiment.evaluation.seed)
    except GradbenchError as reason:
        text = f"too few images for the folds; {note}" if note else str(reason)
        raise MissingData(text) from reason


def clean_images(experiment: Experiment) -> InDistribution:
    """Load the in-distribution images; no network of the run was trained on the hold-out.

    Where that cannot be had, `provenance` says so; see `load_in_distribution`.
    """
    records, limit = tuple(_training_records(experiment)), experiment.settings.limit
    return load_in_distribution(
        experiment.dataset, experiment.data, limit, records, experiment.benchmark
    )


def _training_records(experiment: Experiment) -> Iterator[TrainingRecord]:
    """Yield the facts that are known of the training images of every network."""
    for seed in experiment.seeds:
        config = experiment.backbone(seed)
        path, extent = config.get("checkpoint"), config.get("trained_on")
        if not path:
            yield TrainingRecord()
        elif extent == ALL:
            yield TrainingRecord(extent)
        elif extent not in (None, WITHOUT_HOLD_OUT):
            yield TrainingRecord(sources=read_source_ids(extent), file=extent)
        else:  # the checkpoint's own fingerprints go before what the user says of it
            with step(f"reading {path}"):
                recorded = trained_fingerprints(read_checkpoint(path)[1])
            assumed = TrainingRecord(ALL, certain=False)
            record = TrainingRecord(WITHOUT_HOLD_OUT) if extent else assumed
            yield replace(record, fingerprints=recorded or None)


def network_request(experiment: Experiment, images: InDistribution, seed: int) -> NetworkRequest:
    """Return the request for the network of a seed; published ones have their own normalisation."""
    config = experiment.backbone(seed)
    if entry := config.get(PUBLISHED):
        mean, std = entry["mean"], entry["std"]
    else:
        mean, std = experiment.dataset.normalisation(images.train)
    return NetworkRequest(
        config,
        resolve_precision(experiment.recipe, experiment.device),
        seed,
        tuple(mean),
        tuple(std),
        experiment.device,
    )
