"""One network with everything it is measured on, and the outputs that are read off it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from gradbench.backbones.trained_network import TrainedNetwork
from gradbench.backbones.workers import WorkerPool
from gradbench.challenges import checked
from gradbench.challenges.archive import Archive, archive_of, published_images
from gradbench.challenges.base import Derived, External, ImageRequest
from gradbench.challenges.produce import AttackOutcome, ChallengeSetup, produce
from gradbench.data.checked import load
from gradbench.data.imageset import ImageSet, join
from gradbench.data.in_distribution import InDistribution
from gradbench.data.settings import DataSettings, MissingData
from gradbench.errors import Faulty, GradbenchError
from gradbench.outputs.base import Output
from gradbench.outputs.cached_passes import CachedPasses
from gradbench.outputs.distributed import DistributedReader
from gradbench.outputs.extract import OutputValues, extract
from gradbench.run.experiment import Cell, Experiment
from gradbench.store import Store


@dataclass(frozen=True)
class Seen:
    """Images together with the outputs of f for them.

    Attributes:
        images: the images.
        outputs: by name, each (N, ...).
    """

    images: ImageSet
    outputs: OutputValues

    def select(self, rows: np.ndarray) -> Seen:
        """Return the given rows of both."""
        return Seen(self.images.select(rows), self.outputs.select(rows))

    def join(self, other: Seen) -> Seen:
        """Return both, these first."""
        return Seen(join(self.images, other.images), self.outputs.join(other.outputs))


@dataclass(frozen=True)
class Made:
    """The images of a challenge.

    Attributes:
        images: at the in-distribution shape.
        attack: what an attack did.
        native: (C, H, W) of another set before it was brought to shape.
        processing: what that set went through before, see `data.resample.round_trip`.
    """

    images: ImageSet
    attack: AttackOutcome | None = None
    native: Sequence[int] | None = None
    processing: Sequence | None = None


@dataclass(frozen=True)
class Trial:
    """One network of an experiment.

    Attributes:
        experiment: what is asked for.
        images: the clean images by role.
        f: the network.
        seed: that the experiment names for it.
        store: where products lie.
        pool: workers that read f; none to do it in this process.
        faults: why challenges from outside cannot be measured, by name.
        unfit: why detectors from outside that see no challenge cannot be fitted, by name.
    """

    experiment: Experiment
    images: InDistribution
    f: TrainedNetwork
    seed: int
    store: Store
    pool: WorkerPool | None = None
    faults: dict[str, str] = field(default_factory=dict)
    unfit: dict[str, str] = field(default_factory=dict)

    @cached_property
    def readers(self) -> DistributedReader | None:
        """The workers, as readers of f."""
        return self.pool and DistributedReader(self.pool, self.f.backbone, self.f.weights)

    @cached_property
    def accuracy(self) -> float:
        """Share of the normal images whose class f names, in [0, 1].

        Its logits are those that detectors read, kept by shards; where they are not there yet, all
        else that detectors score is read in the same passes.
        """
        images = self.images.normal
        logits = self.look(images, ["logits"], self.experiment.reads).outputs["logits"]
        return float((logits.argmax(1).numpy() == images.labels).mean())

    @cached_property
    def normal(self) -> Seen:
        """The normal side of every measurement."""
        return self.look(self.images.normal)

    def look(
        self, images: ImageSet, reads: Iterable[str] | None = None, also: Iterable[str] = ()
    ) -> Seen:
        """Read the outputs of f for images: all that the detectors score, or those named.

        Where that takes a pass, `also` is kept of it for those who ask later.
        """
        names = self.outputs_of(self.experiment.reads if reads is None else reads)
        f, also = self.f, self.outputs_of(also)
        return Seen(
            images, extract(f.backbone, f.weights, images, names, self.store, also, self.readers)
        )

    def outputs_of(self, names: Iterable[str]) -> list[Output]:
        """Return the outputs of f with these names, one for each layer of `layer_means`."""
        return self.experiment.outputs.of_network(self.f.backbone, names)

    def again(self, images: ImageSet) -> CachedPasses:
        """Return further passes over images, for detectors that perturb them."""
        seed = self.experiment.config["evaluation"]["seed"]
        return CachedPasses(self.f.backbone, self.f.weights, images, self.store, seed, self.readers)

    def source(self, cell: Cell, strength: float | None = None) -> ChallengeSetup:
        """Return what a derived challenge is made with; see `source`."""
        return source(self.experiment, cell, self.f, strength)

    def challenge(self, cell: Cell) -> Made:
        """Return the images of a challenge.

        Raises:
            MissingData: if images of another dataset are not at hand.
            Faulty: if its class is from outside and does not what a challenge must.
        """
        if cell.name in self.faults:
            raise Faulty(self.faults[cell.name])
        archive = archive_for(self.experiment, cell)
        if archive is not None:
            return Made(from_archive(self.experiment, cell, archive, self.images, self.store))
        if isinstance(cell.challenge, Derived):
            return Made(*produce(self.source(cell), self.images.normal, self.store))
        return brought(self.experiment, cell, self.images.normal, self.experiment.data)


def archive_for(experiment: Experiment, cell: Cell) -> Archive | None:
    """Return the published archive that a challenge is taken from; see `archive.archive_of`."""
    name, root = experiment.dataset.name, experiment.data.root
    return archive_of(cell.challenge, experiment.config, name, root)


def from_archive(
    experiment: Experiment, cell: Cell, archive: Archive, images: InDistribution, store: Store
) -> ImageSet:
    """Return the published images of a corruption; see `archive.published_images`."""
    grouped = experiment.protocol.split != "random"
    level = cell.level
    return published_images(archive, cell.challenge, level, cell.title, images, grouped, store)


def brought(experiment: Experiment, cell: Cell, clean: ImageSet, data: DataSettings) -> Made:
    """Return the images of a challenge that is not made from the clean ones.

    Args:
        experiment: with the settings of all challenges.
        cell: challenge and level.
        clean: the normal side of the measurement.
        data: where images are looked for.

    Raises:
        MissingData: if they are not at hand or cannot be read: one such set is a row without
            numbers and does not end the run.
    """
    try:
        return _brought(experiment, cell, clean, data)
    except (MissingData, Faulty):
        raise
    except GradbenchError as fault:
        raise MissingData(str(fault)) from fault


def _brought(experiment: Experiment, cell: Cell, clean: ImageSet, data: DataSettings) -> Made:
    challenge = cell.challenge
    if isinstance(challenge, External):
        seed = experiment.config["challenge"]["seed"]
        asked = ImageRequest(cell.title, cell.level, clean, experiment.dataset, data, seed)
        return Made(checked.find(challenge, asked))
    dataset = experiment.other_dataset(challenge)
    native = load(dataset, "challenge", data)
    images = challenge.prepare(native, clean.shape, cell.name)
    return Made(images, None, native.shape, dataset.processing_of(native))


def source(experiment: Experiment, cell: Cell, f, strength: float | None = None) -> ChallengeSetup:
    """Return what a derived challenge is made with.

    Args:
        experiment: with the settings of all challenges.
        cell: challenge and level.
        f: with `backbone` and `weights`.
        strength: in place of that of the level.
    """
    challenge = cell.challenge
    settings = experiment.config["challenge"]
    return ChallengeSetup(
        challenge,
        cell.title,
        challenge.strength_at(cell.level) if strength is None else strength,
        settings["seed"],
        settings["quantise"],
        f.backbone if challenge.uses_network else None,
        f.weights if challenge.uses_network else "",
    )
