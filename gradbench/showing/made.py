"""Challenge images for a picture, and what is said of them above it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from gradbench.backbones.trained_network import TrainedNetwork
from gradbench.config import group_files, load_member
from gradbench.data.imageset import ImageSet
from gradbench.data.in_distribution import InDistribution
from gradbench.run.context import NetworkContext
from gradbench.run.experiment import Cell, Experiment
from gradbench.showing.choice import Choice, drawn_as, load, spread
from gradbench.store import Store

USUAL = 8
"""Images shown of one challenge where no number is asked for."""


@contextlib.contextmanager
def trial(
    experiment: Experiment, count: int, choice: Choice, f: TrainedNetwork | None = None
) -> Iterator[NetworkContext]:
    """Give a trial that measures some clean images alone, and leaves nothing in the store of runs.

    Args:
        experiment: with the challenges.
        count: of clean images.
        choice: its seed chooses them.
        f: the network, for attacks.
    """
    whole = load(experiment.dataset, experiment.data)
    part = whole.select(spread(whole, count, choice.seed))
    part = replace(part, images=np.asarray(part.images[:]))
    with tempfile.TemporaryDirectory() as folder:
        images = InDistribution(whole, whole, whole, part)
        yield NetworkContext(experiment, images, f, experiment.seeds[0], Store(folder))


def made_from(tried: NetworkContext, cell: Cell) -> ImageSet:
    """Return the images of a challenge, in memory."""
    made = tried.challenge(cell).images
    return replace(made, images=np.asarray(made.images[:]))


def how_many(clean: ImageSet, choice: Choice, spread_out: bool = True) -> str:
    """Say which images are shown, and how large."""
    count = "1 image" if len(clean) == 1 else f"{len(clean)} images"
    over = " spread over the classes," if spread_out and len(clean) > 1 else ""
    return f"{count}{over} drawn with seed {choice.seed}; {drawn_as(clean)}"


def described(experiment: Experiment, asked: str) -> str:
    """Return what the file of a challenge or suite says of it, nothing for what has no file."""
    if asked not in group_files("challenge", experiment.dirs):
        return ""
    return load_member("challenge", asked, experiment.dirs).get("description") or ""


def named(experiment: Experiment, asked: str) -> str:
    """Return the name of a challenge or suite; of a list, the first of its members."""
    if asked in group_files("challenge", experiment.dirs):
        return asked
    names = list(dict.fromkeys(cell.name for cell in experiment.cells))
    few = ", ".join(names[:4])
    return few if len(names) <= 4 else f"{few} and {len(names) - 4} more"
