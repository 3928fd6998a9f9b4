"""The steps of a run, which of them the store holds already, and what the rest would take."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch

from gradbench.backbones.backbone import Backbone, digest
from gradbench.backbones.obtain import find, fresh
from gradbench.backbones.training import seconds_left
from gradbench.challenges.base import Derived
from gradbench.challenges.other_set import OtherSet
from gradbench.data.dataset import Dataset, DataSettings, MissingData
from gradbench.data.gather import InDistribution, gather, part
from gradbench.data.imageset import ImageSet, shards
from gradbench.detectors.base import GIVEN
from gradbench.extraction.extract import BATCH, compute, shard_key
from gradbench.extraction.feature_layers import expand
from gradbench.pipeline import order
from gradbench.run.experiment import Cell, Experiment
from gradbench.run.trial import archive_for, brought, from_archive, source
from gradbench.store import Store


@dataclass(frozen=True)
class Planned:
    """One step of a run.

    Attributes:
        step: images, network, challenge or outputs.
        what: of which images.
        parts: products it consists of.
        present: how many of them are in the store.
        seconds: estimate for those that are missing.
        note: why it cannot be told, or will not be done.
    """

    step: str
    what: str
    parts: int
    present: int
    seconds: float = 0.0
    note: str = ""


def plan(experiment: Experiment, store: Store) -> list[Planned]:
    """Return the steps that take time; fitting and measuring on kept outputs is not listed.

    Nothing is made and nothing downloaded. Times come from a few steps on this machine, now.
    Where the run would first download the in-distribution images, that is the whole plan.

    Raises:
        MissingData: if in-distribution images are not at hand and cannot be downloaded.
    """
    dataset = experiment.dataset
    for role in ("train", "test"):
        if _would_come(dataset, role, experiment):
            reason = dataset.ready(role, experiment.data)
            note = f"{reason}: what comes after cannot be told before"
            return [Planned("images", f"{dataset.name} ({role})", 0, 0, note=note)]
    images = gather(dataset, _offline(experiment), experiment.config["limit"])
    lines = []
    for seed in experiment.seeds:
        wanted = order(experiment, images, seed)
        f = find(wanted, images.train, store)
        what = f"{wanted.config['name']} seed {seed}"
        seconds, note = 0.0, wanted.config.get("checkpoint") or ""
        if f is None:
            recipe = experiment.recipe
            steps = recipe.epochs * max(len(images.train) // recipe.batch, 1)
            f_new = fresh(wanted, images.train)
            seconds = seconds_left(f_new, images.train, recipe, experiment.device, steps)
            note = f"{recipe.epochs} epochs"
        lines.append(Planned("network", what, 1, int(f is not None), seconds, note))
        backbone = f or fresh(wanted, images.train).to(experiment.device).eval()
        each = _seconds_an_image(experiment, backbone, images.normal, experiment.reads)
        known = None if f is None else _Known(f, digest(f), expand(f, experiment.reads))
        lines += _cells(experiment, images, known, each, store)
        lines += _aside(experiment, images, backbone, known, each, store)
    return lines


def _aside(experiment, images: InDistribution, backbone, f, each: float, store: Store):
    """Yield what is read of images that are never measured."""
    controls = experiment.config["controls"]
    detectors = {name: experiment.detector(name) for name in experiment.detectors}
    for what, role, reads in (
        ("training images", images.train, "bank_reads"),
        ("hold-out", images.hold_out, "hold_out_reads"),
    ):
        names = {n for d in detectors.values() for n in getattr(d, reads)}.difference(GIVEN)
        if names and len(role):
            spent = _seconds_an_image(experiment, backbone, role, sorted(names))
            known = f and replace(f, names=expand(f.backbone, sorted(names)))
            yield _line(what, role.digests, len(role), known, spent, store)
        if controls["memorisation"] and len(images.hold_out):
            some = part(role, controls["limit"])
            yield _outputs(f"{what}, for the memorisation", some, f, each, store)
    some = part(images.hold_out, experiment.config["model"]["hold_out"])
    shared = controls["memorisation"] and len(some) == len(part(images.hold_out, controls["limit"]))
    if experiment.config["model"]["hold_out"] and len(some) and not shared:
        yield _outputs("hold-out, for the thresholds", some, f, each, store)
    for name, detector in detectors.items():
        own = experiment.own_cells(name)
        if own:
            size = len(part(images.hold_out, detector.synthetic_images)) * (1 + len(own))
            note = "at most; not looked up"
            yield Planned("outputs", f"challenges of {name}", len(own), 0, size * each, note)


def _cells(experiment, images: InDistribution, f: _Known | None, each: float, store: Store):
    yield _outputs(images.normal.name, images.normal, f, each, store)
    for cell in experiment.cells:
        try:
            archive = archive_for(experiment, cell)
        except MissingData as reason:
            yield Planned("outputs", cell.title, 0, 0, note=f"will not be measured: {reason}")
            continue
        if archive is not None:
            found = from_archive(experiment, cell, archive, images, store)
            yield _outputs(cell.title, found, f, each, store)
            continue
        if isinstance(cell.challenge, Derived):
            yield from _derived(experiment, cell, images.normal, f, each, store)
            continue
        try:
            if isinstance(cell.challenge, OtherSet):
                dataset = experiment.other_dataset(cell.challenge)
                if _would_come(dataset, "challenge", experiment):
                    note = dataset.ready("challenge", experiment.data)
                    yield Planned("outputs", cell.title, 0, 0, note=note)
                    continue
            other = brought(experiment, cell, images.normal, _offline(experiment)).images
        except MissingData as reason:
            yield Planned("outputs", cell.title, 0, 0, note=f"will not be measured: {reason}")
            continue
        yield _outputs(cell.title, other, f, each, store)
    trips = sum(isinstance(c.challenge, OtherSet) for c in experiment.cells)
    controls = experiment.config["controls"]
    if controls["round_trip"] and trips:
        size = min(controls["limit"], len(images.normal))
        yield Planned(
            "outputs",
            f"{trips} round trips",
            trips,
            0,
            trips * size * each,
            "at most; not looked up",
        )


def _offline(experiment: Experiment) -> DataSettings:
    return replace(experiment.data, download=False)


def _would_come(dataset: Dataset, role: str, experiment: Experiment) -> bool:
    """Tell whether a run would download the images of a role."""
    missing = dataset.ready(role, _offline(experiment))
    return bool(missing) and missing != dataset.ready(role, experiment.data)


def _derived(experiment, cell: Cell, clean: ImageSet, f, each: float, store: Store):
    count = len(shards(len(clean)))
    if cell.challenge.uses_network and f is None:
        seconds = len(clean) * each
        passes = getattr(cell.challenge, "passes", 1)
        yield Planned("challenge", cell.title, count, 0, passes * seconds, "after training")
        yield Planned("outputs", cell.title, count, 0, seconds, "after training")
        return
    keys = source(experiment, cell, f).keys(clean)
    products = [store.get(key) for key in keys]
    present = sum(p is not None for p in products)
    rate = each * getattr(cell.challenge, "passes", 1 if cell.challenge.uses_network else 0.01)
    missing = (count - present) * len(clean) / count
    yield Planned("challenge", cell.title, count, present, missing * rate)
    digests = [p.about["digest"] if p else None for p in products]
    yield _line(cell.title, digests, len(clean), f, each, store)


@dataclass(frozen=True)
class _Known:
    """A trained network, its digest, and the names of the outputs that are read off it."""

    backbone: Backbone
    weights: str
    names: list[str]


def _outputs(what: str, images: ImageSet, f, each: float, store) -> Planned:
    return _line(what, images.digests, len(images), f, each, store)


def _line(what: str, digests: list, size: int, f: _Known | None, each, store) -> Planned:
    present = sum(
        f is not None
        and digest is not None
        and all(store.has(shard_key(name, f.weights, digest)) for name in f.names)
        for digest in digests
    )
    seconds = (len(digests) - present) * size / len(digests) * each
    return Planned("outputs", what, len(digests), present, seconds,
                   "" if f else "after training")  # fmt: skip


def _seconds_an_image(
    experiment: Experiment, backbone: Backbone, images: ImageSet, names: list[str]
) -> float:
    """Return what reading outputs off one image takes, from the faster of two tries."""
    rows = slice(0, min(BATCH, len(images)))
    times = []
    for _ in range(2):
        begun = time.monotonic()
        compute(backbone, images, rows, names)
        if experiment.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.monotonic() - begun)
    return min(times) / rows.stop
