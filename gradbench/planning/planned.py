"""One line of a plan: how many products a step has, how many are there, what the rest takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from gradbench.backbones.backbone import Backbone
from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.imageset import ImageSet
from gradbench.outputs.base import Output
from gradbench.outputs.extract import shard_key
from gradbench.outputs.read import BATCH, compute_outputs
from gradbench.run.experiment import Experiment
from gradbench.store import Store
from gradbench.support.progress import step

AT_MOST = "at most; not looked up"
AFTER = "after training"
ENOUGH = 0.5
"""Seconds of a try that are enough to tell from; no larger one is made."""


@dataclass(frozen=True)
class Planned:
    """One step of a run.

    Attributes:
        step: images, network, challenge, outputs or perturbed.
        what: of which images, or for which detector.
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


@dataclass(frozen=True)
class Known:
    """A trained network, its digest, and the outputs that are read off it."""

    backbone: Backbone
    weights: str
    outputs: list[Output]


def outputs(
    what: str, digests: Sequence[str | None], size: int, f: Known | None, each: float, store: Store
) -> Planned:
    """Return the line of the outputs of f for some images.

    Args:
        what: name of the images.
        digests: of their shards, None where they are not made yet.
        size: number of images.
        f: the network, None before it is trained.
        each: seconds an image takes.
        store: where products lie.
    """
    present = sum(
        f is not None
        and digest is not None
        and all(store.has(shard_key(one, f.weights, digest)) for one in f.outputs)
        for digest in digests
    )
    seconds = (len(digests) - present) * size / len(digests) * each
    return Planned("outputs", what, len(digests), present, seconds, "" if f else AFTER)


def seconds_an_image(
    experiment: Experiment, backbone: Backbone, images: ImageSet, read: list[Output]
) -> float:
    """Return what reading outputs off one image takes."""
    with step(f"timing what is read of {images.name} {images.split}"):
        return each(
            lambda count: compute_outputs(backbone, images, slice(0, count), read),
            min(BATCH, len(images)),
            experiment.device,
        )


def each(work: Callable[[int], object], most: int, device: torch.device) -> float:
    """Return the seconds that a unit takes in a batch, from batches that grow while they are quick.

    One unit goes first without being counted: a network that is read for the first time is looked
    at.

    Args:
        work: on so many units.
        most: units in the largest batch.
        device: that works.
    """
    work(1)
    count, spent = 1, timed(lambda: work(1), device)
    while count < most and spent < ENOUGH:
        count = min(most, 2 * count if spent > ENOUGH / 4 else 4 * count)
        spent = timed(lambda count=count: work(count), device)
    return spent / count


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that work takes."""
    begun = time.monotonic()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic() - begun


def offline(experiment: Experiment) -> DataSettings:
    """Return where images are looked for, without download."""
    return replace(experiment.data, download=False)


def would_come(dataset: Dataset, role: str, experiment: Experiment) -> bool:
    """Tell whether a run would download the images of a role."""
    missing = dataset.ready(role, offline(experiment))
    return bool(missing) and missing != dataset.ready(role, experiment.data)
