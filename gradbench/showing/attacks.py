"""A picture of attacks: clean, perturbation, attacked, and what the network says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from gradbench.backbones.backbone import Backbone, digest
from gradbench.backbones.devices import set_exact_arithmetic
from gradbench.backbones.output_check import check_outputs
from gradbench.backbones.trained_network import TrainedNetwork, find_network
from gradbench.data.imageset import to_float
from gradbench.data.in_distribution import InDistribution, load_in_distribution
from gradbench.errors import GradbenchError
from gradbench.report.sheet import Panel, Row, sheet
from gradbench.run.context import network_request
from gradbench.run.experiment import Experiment
from gradbench.showing.choice import WORDNET, Choice, label_name, load, uint8
from gradbench.showing.made import USUAL, described, how_many, made_from, named, trial
from gradbench.store import Store

FACTORS = (1, 2, 3, 5, 10, 20, 30, 50, 100)
"""By which perturbations are amplified."""
CLIPPED = 0.005
"""Share of the largest changes that the amplified picture may cut off."""


def show_attacks(
    experiment: Experiment, store: Store, choice: Choice, path: Path, asked: str
) -> None:
    """Draw clean images, amplified perturbations and attacked images with the network's answers.

    Raises:
        GradbenchError: if there is no trained network.
    """
    set_exact_arithmetic()
    cells = experiment.cells
    f = network(experiment, store)
    rows, heading = [], "perturbation"
    with trial(experiment, choice.count or (USUAL if len(cells) == 1 else 2), choice, f) as tried:
        clean = tried.images.normal
        check_outputs(f.backbone, clean)
        before = answered(f.backbone, clean.images, clean.labels)
        for cell in cells:
            made = made_from(tried, cell)
            changes = 255.0 * (to_float(made.images) - to_float(clean.images)).numpy()
            factor = amplification(changes)
            if len(cells) == 1:
                heading = f"perturbation ×{factor}"
            after = answered(f.backbone, made.images, clean.labels)
            for label, old, change, new in zip(clean.labels, before, changes, after):
                first = f"×{factor}, " if len(cells) > 1 else ""
                middle = Panel(amplified(change, factor), first + norms(change))
                name = label_name(clean, int(label))
                name = name if len(cells) == 1 else f"{cell.title}\n{name}"
                rows.append(Row(name, [old, middle, new]))
    notes = [
        described(experiment, asked),
        f"{_network_name(experiment)}; below, the class that it names and its probability, "
        "coloured where wrong",
        how_many(clean, choice),
    ]
    title = f"{named(experiment, asked)} on {clean.name} {clean.split}"
    sheet(path, title, notes, rows, ["clean", heading, "attacked"])


def network(experiment: Experiment, store: Store) -> TrainedNetwork:
    """Return the network of the checkpoint, else the trained one in the store.

    Raises:
        GradbenchError: if there is neither.
    """
    dataset, data = experiment.dataset, replace(experiment.data, download=False)
    config = experiment.config["backbone"]
    missing = [role for role in ("train", "test") if dataset.ready(role, data)]
    f = None
    if config.get("checkpoint"):
        train = load(dataset, data) if "train" in missing else dataset.load("train", data)
        if "train" not in missing:
            train = train.select(np.flatnonzero(~dataset.held_out(train)))
        images = InDistribution(train, train, train, train)
        f = find_network(network_request(experiment, images, experiment.seeds[0]), train, store)
    elif not missing:
        images = load_in_distribution(dataset, data)
        f = find_network(
            network_request(experiment, images, experiment.seeds[0]), images.train, store
        )
    if f is None:
        raise GradbenchError(
            f"{experiment.cells[0].name} needs a trained network and the store has no "
            f"{config['name']} for {dataset.name}: give backbone.checkpoint=FILE (and its "
            f"settings, such as backbone.width), or train one with `gradbench run "
            f"dataset={dataset.name}`"
        )
    return TrainedNetwork(f, digest(f), "", experiment.seeds[0], {})


def answered(backbone: Backbone, pixels: np.ndarray, labels: np.ndarray) -> list[Panel]:
    """Return images with the class that the network names and its probability."""
    with torch.inference_mode():
        logits = backbone(to_float(pixels).to(backbone.device)).cpu()
    chances, classes = logits.double().softmax(1).max(1)
    names = [WORDNET.sub("", backbone.classes[found]) for found in classes]
    captions = [f"{name}\n{percent(float(chance))}" for name, chance in zip(names, chances)]
    wrong = classes.numpy() != labels
    return [Panel(*panel) for panel in zip(uint8(pixels), captions, wrong)]


def amplification(changes: np.ndarray) -> int:
    """Return the largest factor at which changes of grey levels still fit into half the range."""
    largest = np.quantile(np.abs(changes), 1 - CLIPPED)
    return max((f for f in FACTORS if f * largest <= 127), default=1)


def amplified(change: np.ndarray, factor: int) -> np.ndarray:
    """Return a change of grey levels as a picture: mid-grey where there is none."""
    return np.clip(128 + np.rint(factor * change), 0, 255).astype(np.uint8)


def percent(chance: float) -> str:
    """Return a probability in percent; 100 is written for 1 alone.

    >>> percent(0.874), percent(0.999), percent(1.0)
    ('87 %', '>99 %', '100 %')
    """
    return ">99 %" if 0.995 <= chance < 1 else f"{100 * chance:.0f} %"


def norms(change: np.ndarray) -> str:
    """Return L2 and L∞ norm of a change of grey levels, in [0, 1] pixels."""
    part = change / 255
    return f"L2 {np.sqrt(np.square(part).sum()):.2f}\nL∞ {np.abs(part).max():.3f}"


def _network_name(experiment: Experiment) -> str:
    config = experiment.config["backbone"]
    width = f" of width {config['width']}" if config.get("width") else ""
    origin = config.get("checkpoint")
    return f"{config['name']}{width}, {Path(origin).name if origin else 'trained here'}"
