"""The configuration of a run as objects, checked as a whole before any work starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import torch

from gradbench.backbones.build import check_network
from gradbench.backbones.devices import find_devices
from gradbench.backbones.published import resolve_published
from gradbench.backbones.recipe import Recipe
from gradbench.challenges.archive import check_source
from gradbench.challenges.base import Challenge, Derived
from gradbench.challenges.checked import UnusableChallenge, checked_challenge
from gradbench.challenges.other_set import OtherSet
from gradbench.config import Settings, check_settings, expand, load_member
from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.image_lists import Benchmark, ImageList
from gradbench.data.in_distribution import TRAINED_ON
from gradbench.errors import Faulty, GradbenchError
from gradbench.methods.base import Method
from gradbench.methods.checked import check_declared, checked
from gradbench.outputs.catalogue import OutputCatalogue
from gradbench.outputs.members import ALONE
from gradbench.protocols.base import Protocol
from gradbench.run.rows import is_mean
from gradbench.statistics.bootstrap import EvaluationSettings
from gradbench.support.code_keys import is_external
from gradbench.support.instantiate import NOT_ARGUMENTS, instantiate
from gradbench.support.text import format_value
from gradbench.tasks.base import Task
from gradbench.tasks.detection import Detection

SEED = "{seed}"
"""Stands in `backbone.checkpoint` for each of several seeds."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One challenge at one level, None for a challenge without levels."""

    name: str
    challenge: Challenge
    level: int | None = None
    listed: ImageList | None = None  # the images of it that are measured; None for all

    @property
    def kind(self) -> str:
        """The column `challenge_set` of its rows."""
        return self.listed.kind if self.listed else self.challenge.kind

    @property
    def title(self) -> str:
        """Name and level as text."""
        return self.name if self.level is None else f"{self.name} {self.level}"


@dataclass(frozen=True)
class Experiment:
    """A run's configuration as objects.

    Attributes:
        config: the resolved configuration; `settings` holds the same with its types.
        dirs: folders of the user's own configuration files.
        dataset: in-distribution images.
        detectors: configuration of each detector that is measured, by name.
        seeds: of f, one network each.
        devices: to train and extract on; all else is done on the first.
        left_out: supervision of each detector that the protocol does not measure.
        refused: why a detector whose class is from outside cannot be measured at all.
    """

    config: Mapping[str, Any]
    dirs: tuple[Path, ...]
    dataset: Dataset
    cells: tuple[Cell, ...]
    detectors: Mapping[str, Mapping[str, Any]]
    protocol: Protocol
    seeds: tuple[int, ...]
    recipe: Recipe
    devices: tuple[torch.device, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    task: Task = field(default_factory=Detection)

    @cached_property
    def settings(self) -> Settings:
        """The settings of the run with their types."""
        return msgspec.convert(self.config, Settings)

    @cached_property
    def evaluation(self) -> EvaluationSettings:
        """How numbers and their intervals are measured; its seed also divides the images."""
        return EvaluationSettings(**self.config["evaluation"])

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.settings.name

    @property
    def device(self) -> torch.device:
        """The first of the devices."""
        return self.devices[0]

    @cached_property
    def data(self) -> DataSettings:
        """Where images are looked for."""
        data = self.settings.data
        return DataSettings(Path(data.root).expanduser(), data.download, data.workers)

    def detector(self, name: str) -> Method:
        """Build a detector afresh, so that no fit leaks into another; its doors are watched."""
        method = instantiate("detector", name, self.detectors[name], base=Method)
        if method.reads_members:
            method.networks = len(self.seeds)
        return checked(name, method)

    @cached_property
    def outputs(self) -> OutputCatalogue:
        """The outputs that detectors may read, those of the user's own folders among them."""
        return OutputCatalogue(self.dirs)

    def own_cells(self, name: str) -> tuple[Cell, ...]:
        """Return the challenges that are made for a detector from the hold-out.

        Raises:
            GradbenchError: for one that is unknown or not made from clean images, or has no such
                level.
        """
        cells = []
        for own, level in self.detector(name).synthetic.items():
            challenge = _challenge(own, load_member("challenge", own, self.dirs))
            if isinstance(challenge, UnusableChallenge):
                raise Faulty(challenge.reason)
            if not isinstance(challenge, Derived):
                raise GradbenchError(
                    f"detector {name}: challenge {own} is not made from clean images; choose "
                    "noise, a blur or an attack"
                )
            challenge.strength_at(level)  # raises for a level that there is not
            cells.append(Cell(own, challenge, level))
        return tuple(cells)

    def other_dataset(self, challenge: OtherSet) -> Dataset:
        """Build the dataset of a challenge."""
        name = challenge.dataset
        content = load_member("dataset", name, self.dirs) | challenge.settings
        return instantiate("dataset", name, content, ("_target_",), OtherSet.OWN, Dataset)

    def backbone(self, seed: int) -> dict[str, Any]:
        """Return the configuration of the network of a seed, with the names of its own files.

        Raises:
            GradbenchError: if a published network is asked for and none is known or at hand.
        """
        content = dict(self.config["backbone"])
        for name in ("checkpoint", "trained_on"):
            if content.get(name):
                content[name] = content[name].replace(SEED, str(seed))
        return resolve_published(content, self.dataset.name, self.data.root)

    @cached_property
    def benchmark(self) -> Benchmark | None:
        """The lists of images that the protocol measures, None where it measures whole sets."""
        return self.protocol.benchmark(self.dataset.name)

    @cached_property
    def comparing(self) -> list[str]:
        """Names of the detectors that compare all networks of the run."""
        return [name for name in self.detectors if self.detector(name).reads_members]

    @cached_property
    def shifted_cells(self) -> tuple[Cell, ...]:
        """All families and levels of CIFAR-10-C, which a full spectrum counts as normal."""
        challenges = {
            name: _challenge(name, content)
            for name, content in expand("challenge", ["cifar10c"], self.dirs)
        }
        for challenge in challenges.values():
            challenge.with_data(self.data.root)
        return tuple(_cells(challenges, None, None))

    @cached_property
    def reads(self) -> list[str]:
        """Names of all outputs that the detectors score."""
        return sorted({name for d in self.detectors for name in self.detector(d).reads})


def build_experiment(config: Mapping[str, Any], dirs: Iterable[Path] = ()) -> Experiment:
    """Turn a resolved configuration into an experiment.

    Raises:
        GradbenchError: for an unknown name, a wrong type or a value out of range.
    """
    try:
        return _build(config, dirs)
    except OSError as fault:  # of a path that no file can have
        raise GradbenchError(f"{format_value(fault.filename)}: {fault.strerror}") from fault


def _build(config: Mapping[str, Any], dirs: Iterable[Path]) -> Experiment:
    dirs = tuple(Path(folder) for folder in dirs)
    check_settings(config)
    dataset, protocol, task = (
        instantiate(group, _name_of(config[group]), config[group], drop, base=base)
        for group, drop, base in (
            ("dataset", ("_target_",), Dataset),
            ("protocol", NOT_ARGUMENTS, Protocol),
            ("task", NOT_ARGUMENTS, Task),
        )
    )
    challenges = {
        name: _challenge(name, content)
        for name, content in expand("challenge", config["challenges"], dirs)
    }
    detectors = dict(expand("detector", config["detectors"], dirs))
    if not detectors:
        raise GradbenchError(
            "detectors=[]: name at least one; `gradbench list detectors` tells all"
        )
    refused, left_out = _not_measured(detectors, OutputCatalogue(dirs), protocol, task)
    unmeasured = {*refused, *left_out}
    for name in filter(is_mean, challenges):
        raise GradbenchError(
            f"challenges: '{name}' is the name of a mean over challenges in tables; give yours "
            "another name"
        )
    check_network(config["backbone"])
    _check_trained_on(config["backbone"])
    experiment = Experiment(
        config=config,
        dirs=dirs,
        dataset=dataset,
        cells=tuple(
            _cells(
                challenges,
                _numbers(config, "level", "levels"),
                protocol.benchmark(dataset.name),
            )
        ),
        detectors={name: each for name, each in detectors.items() if name not in unmeasured},
        protocol=protocol,
        task=task,
        left_out=left_out,
        refused=refused,
        seeds=tuple(_numbers(config, "seeds", "seed")),
        recipe=Recipe(**{**config["training"], **dataset.augment}),
        devices=find_devices(config["device"], config["devices"]),
    )
    if len(experiment.devices) > experiment.recipe.batch:
        raise GradbenchError(
            f"devices={config['devices']}: a batch of training.batch={experiment.recipe.batch} "
            "images cannot be shared out among so many"
        )
    path = config["backbone"].get("checkpoint") or SEED
    if len(experiment.seeds) > 1 and SEED not in path:
        raise GradbenchError(
            f"seeds={list(experiment.seeds)} with backbone.checkpoint={path}: a checkpoint is one "
            f"network; write {SEED} where its seed stands in the name, give one seed, or leave the "
            "checkpoint out"
        )
    if len(experiment.seeds) < 2 and (comparing := experiment.comparing):
        raise GradbenchError(f"detectors: {', '.join(comparing)}: {ALONE}")
    check_source(config, dataset.name, challenges.values())
    own = [cell.challenge for name in experiment.detectors for cell in experiment.own_cells(name)]
    for challenge in (*challenges.values(), *own):
        challenge.check_dataset(dataset)
        if isinstance(challenge, OtherSet):
            experiment.other_dataset(challenge).splits("challenge")
        if isinstance(challenge, Derived):
            challenge.with_data(experiment.data.root)
    return experiment


def _name_of(content: Mapping[str, Any]) -> str:
    """Return the name of a member for messages; a user's folder of images has only a class."""
    return content.get("name") or content["_target_"].rpartition(".")[2]


def _challenge(name: str, content: Mapping[str, Any]) -> Challenge:
    """Build a challenge; one from outside that cannot be measured becomes a row that says why."""
    try:
        return checked_challenge(
            name, instantiate("challenge", name, content, base=Challenge), content
        )
    except Faulty as fault:
        return UnusableChallenge("ood", str(fault))


def _not_measured(
    detectors: Mapping[str, Mapping], outputs: OutputCatalogue, protocol: Protocol, task: Task
) -> tuple[dict[str, str], dict[str, str]]:
    """Return why detectors from outside cannot be measured, and whom the protocol leaves out.

    The latter with their supervision.

    Raises:
        GradbenchError: if none is left, or a detector is asked for in a way that no class takes.
    """
    refused, left_out, others = {}, {}, {}
    for name, content in detectors.items():
        try:
            detector = instantiate("detector", name, content, base=Method)
            check_declared(name, detector, outputs)
            if detector.predicts != task.predicts:
                others[name] = detector.predicts
            if detector.supervision not in protocol.supervision:
                left_out[name] = detector.supervision
        except Faulty as fault:
            if isinstance(fault.__cause__, GradbenchError) and not is_external(detector):
                raise fault.__cause__ from fault  # a setting that the user gave
            refused[name] = str(fault)
    if others:
        kinds = ", ".join(f"{name} ({kind})" for name, kind in others.items())
        raise GradbenchError(
            f"task={task.name} measures {task.predicts}; {kinds} give something else: leave them "
            "out, or choose another task"
        )
    if len(refused) == len(detectors):
        raise GradbenchError("; ".join(refused.values()))
    if len(refused) + len(left_out) == len(detectors):
        raise GradbenchError(
            f"protocol={protocol.name} measures detectors of supervision "
            f"{' or '.join(protocol.supervision)} alone, and {', '.join(left_out)} learn from "
            "challenges: add another detector, msp for example"
        )
    return refused, left_out


def _cells(
    challenges: Mapping[str, Challenge], levels: list[int] | None, benchmark: Benchmark | None
):
    for name, challenge in challenges.items():
        if not challenge.levels:
            listed = None
            # with settings of the set itself, such as a path, the images are others
            if benchmark and isinstance(challenge, OtherSet) and not challenge.settings:
                listed = benchmark.sets.get(challenge.dataset)
            yield Cell(name, challenge, listed=listed)
            continue
        for level in challenge.levels if levels is None else levels:
            challenge.check_level(level)
            yield Cell(name, challenge, level)


def _numbers(config: Mapping[str, Any], first: str, other: str) -> list[int] | None:
    """Return levels or seeds, given under either of two names; None where there are none.

    Raises:
        GradbenchError: unless each number stands there once.
    """
    key = other if config[first] is None else first
    values = config[key] if isinstance(config[key], list | None) else [config[key]]
    if values == []:
        raise GradbenchError(f"{key}=[]: write whole numbers from 0, for example '{key}=[1,3,5]'")
    if values and len(set(values)) < len(values):
        raise GradbenchError(f"{key}={values}: a number stands there twice")
    return values


def _check_trained_on(backbone: Mapping[str, Any]) -> None:
    """Refuse a `backbone.trained_on` without a checkpoint that it could speak of."""
    said = backbone.get("trained_on")
    if said is not None and not backbone.get("checkpoint"):
        raise GradbenchError(
            f"{TRAINED_ON}={said} is said of a network from backbone.checkpoint=FILE, and there is "
            "none: gradbench trains its own without the hold-out"
        )
