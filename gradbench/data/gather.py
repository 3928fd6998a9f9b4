"""The in-distribution images of a run, by role."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradbench.data import checked
from gradbench.data.dataset import Dataset, DataSettings, MissingData
from gradbench.data.imageset import ImageSet
from gradbench.data.roles import hold_out

SCARCE = 0.05
"""Share of a published training set below which a copy is not taken for it."""


@dataclass(frozen=True)
class InDistribution:
    """The clean images of a run.

    Attributes:
        train: what f is trained on, also the *bank*.
        hold_out: images of the training set that f never sees.
        test: clean test images, all of them.
        normal: those test images that are the normal side of every measurement.
    """

    train: ImageSet
    hold_out: ImageSet
    test: ImageSet
    normal: ImageSet


def gather(dataset: Dataset, settings: DataSettings, limit: int | None = None) -> InDistribution:
    """Load the in-distribution images and give every image its role.

    Args:
        dataset: the in-distribution set.
        settings: where it is looked for.
        limit: class-stratified number of test images to measure on, the same ones in every run;
            None for all.

    Raises:
        MissingData: if images are missing, or too few of the training set are at hand.
        GradbenchError: if the set has no such role or its files are damaged.
    """
    whole = checked.load(dataset, "train", settings)
    if reason := scarce(dataset, whole.split, len(whole), settings):
        raise MissingData(reason)
    test = checked.load(dataset, "test", settings)
    kept = checked.check_held_out(dataset, dataset.held_out(whole), len(whole))
    return InDistribution(
        train=whole.select(np.flatnonzero(~kept)),
        hold_out=whole.select(np.flatnonzero(kept), "hold-out"),
        test=test,
        normal=part(test, limit),
    )


def scarce(dataset: Dataset, split: str, count: int, settings: DataSettings) -> str:
    """Return why so small a part of a training set is refused, f being another network; or ""."""
    official = dataset.counts.get(split, 0)
    if count >= SCARCE * official:
        return ""
    return (
        f"{dataset.name} cannot be the in-distribution set here: {count:,} of {official:,} "
        f"training images are at hand, and at least {SCARCE:.0%} are needed to train and judge a "
        f"network: put the whole set at {settings.root / dataset.name}"
    )


def part(images: ImageSet, limit: int | None) -> ImageSet:
    """Return a class-stratified part of a set, the same every time, in its order; None for all."""
    if limit is None or limit >= len(images):
        return images
    return images.select(np.flatnonzero(hold_out(images.labels, images.groups, limit)))
