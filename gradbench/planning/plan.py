"""The steps of a run, which of them the store holds already, and what the rest would take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gradbench.backbones.backbone import Backbone, digest
from gradbench.backbones.trained_network import find_network, initial_network
from gradbench.backbones.training import estimate_seconds
from gradbench.backbones.workers import Worker
from gradbench.data.imageset import ImageSet
from gradbench.data.in_distribution import InDistribution
from gradbench.data.roles import stratified_subset
from gradbench.methods.base import BANK_EXTRAS
from gradbench.pipeline import order
from gradbench.planning import passes
from gradbench.planning.challenges import Challenges
from gradbench.planning.planned import (
    AT_MOST,
    Known,
    Planned,
    offline,
    outputs,
    seconds_an_image,
    would_come,
)
from gradbench.run.clean_images import clean_images
from gradbench.run.experiment import Experiment
from gradbench.store import Store


def plan(experiment: Experiment, store: Store) -> list[Planned]:
    """Return the steps that take time; fitting and measuring on kept outputs is not listed.

    Nothing is made and nothing downloaded. Times come from a few steps on this machine, now.
    Where the run would first download the in-distribution images, that is the whole plan.

    Raises:
        MissingData: if in-distribution images are not at hand and cannot be downloaded.
    """
    dataset = experiment.dataset
    for role in ("train", "test"):
        if would_come(dataset, role, experiment):
            reason = dataset.ready(role, experiment.data)
            note = f"{reason}: what comes after cannot be told before"
            return [Planned("images", f"{dataset.name} ({role})", 0, 0, note=note)]
    images = clean_images(experiment, offline(experiment))
    lines = [
        Planned("detector", name, 0, 0, note=f"will not be measured: {reason}")
        for name, reason in experiment.refused.items()
    ]
    for seed in experiment.seeds:
        wanted = order(experiment, images, seed)
        f = find_network(wanted, images.train, store)
        what = f"{wanted.config['name']} seed {seed}"
        seconds, note = 0.0, wanted.config.get("checkpoint") or ""
        if f is None:
            recipe = experiment.recipe
            steps = recipe.epochs * max(len(images.train) // recipe.batch, 1)
            f_new = initial_network(wanted, images.train)
            seconds = estimate_seconds(
                f_new, images.train, recipe, steps, Worker(experiment.device)
            )
            note = f"{recipe.epochs} epochs"
        lines.append(Planned("network", what, 1, int(f is not None), seconds, note))
        backbone = f or initial_network(wanted, images.train).to(experiment.device).eval()
        read = experiment.outputs.of_network(backbone, experiment.reads)
        each = seconds_an_image(experiment, backbone, images.normal, read)
        known = None if f is None else Known(f, digest(f), read)
        challenges = Challenges(experiment, images, backbone, known, each, store)
        lines += challenges.lines()
        lines += _aside(experiment, images, backbone, known, each, store)
        lines += passes.lines(challenges, seed)
    return lines


def _aside(
    experiment: Experiment,
    images: InDistribution,
    backbone: Backbone,
    f: Known | None,
    each: float,
    store: Store,
) -> Iterator[Planned]:
    """Yield what is read of images that are never measured."""
    controls = experiment.config["controls"]
    detectors = {name: experiment.detector(name) for name in experiment.detectors}
    remembered = controls["memorisation"] and len(images.hold_out) and images.provenance.unseen

    def read(what: str, some: ImageSet) -> Planned:
        return outputs(what, some.digests, len(some), f, each, store)

    for what, role, reads in (
        ("training images", images.train, "bank_reads"),
        (images.provenance.hold_out_name, images.hold_out, "hold_out_reads"),
    ):
        names = {n for d in detectors.values() for n in getattr(d, reads)}.difference(BANK_EXTRAS)
        if names and len(role):
            what_is_read = experiment.outputs.of_network(backbone, names)
            spent = seconds_an_image(experiment, backbone, role, what_is_read)
            known = f and replace(f, outputs=what_is_read)
            yield outputs(what, role.digests, len(role), known, spent, store)
        if remembered:
            yield read(f"{what}, for the memorisation", stratified_subset(role, controls["limit"]))
    some = stratified_subset(images.hold_out, experiment.config["model"]["hold_out"])
    shared = remembered and len(some) == len(stratified_subset(images.hold_out, controls["limit"]))
    if experiment.config["model"]["hold_out"] and len(some) and not shared:
        yield read(f"{images.provenance.hold_out_name}, for the thresholds", some)
    for name, detector in detectors.items():
        own = experiment.own_cells(name)
        if own:
            size = len(stratified_subset(images.hold_out, detector.synthetic_images))
            size *= 1 + len(own)
            yield Planned("outputs", f"challenges of {name}", len(own), 0, size * each, AT_MOST)
