"""The in-distribution images of a run, by role."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gradbench.data import checked
from gradbench.data.dataset import Dataset, DataSettings, MissingData
from gradbench.data.imageset import ImageSet
from gradbench.data.labels import numbered_alike
from gradbench.data.raw import join_notes
from gradbench.data.roles import hold_out
from gradbench.data.trained_on import Knowledge, TrainedOn
from gradbench.errors import GradbenchError

OTHER_PRINTS = "its checkpoint tells of other images or another hold-out than these"
SCARCE = 0.05
"""Share of a published training set below which a copy is not taken for it."""
LEAST = 100
"""Images of a hold-out, at least, unless a smaller one is asked for: of fewer, a threshold that
keeps 95 % is off by several percent."""
SPARED = 3
"""At most one of so many test images is taken for the hold-out."""


@dataclass(frozen=True)
class InDistribution:
    """The clean images of a run.

    Attributes:
        train: what f is trained on, also the *bank*.
        hold_out: images that f never sees, of the training set, or where f may have seen that,
            of the test set; see `known`.
        test: clean test images, all of them.
        normal: those test images that are the normal side of every measurement.
        known: what is known of train and hold-out.
    """

    train: ImageSet
    hold_out: ImageSet
    test: ImageSet
    normal: ImageSet
    known: Knowledge = field(default_factory=Knowledge)


def gather(
    dataset: Dataset,
    settings: DataSettings,
    limit: int | None = None,
    networks: Sequence[TrainedOn] = (TrainedOn(),),
) -> InDistribution:
    """Load the in-distribution images and give every image its role.

    Args:
        dataset: the in-distribution set.
        settings: where it is looked for.
        limit: class-stratified number of test images to measure on, the same ones in every run;
            None for all.
        networks: what those were trained on that are measured; the hold-out serves all of them.

    Raises:
        MissingData: if images are missing, or too few of the training set are at hand.
        GradbenchError: if the set has no such role, its files are damaged, the classes of the test
            images are not those of the training images, or a list of training images does not fit.
    """
    whole = checked.load(dataset, "train", settings)
    if reason := scarce(dataset, whole.split, len(whole), settings):
        raise MissingData(reason)
    test = numbered_alike(checked.load(dataset, "test", settings), whole)
    for one in networks:
        one.check(whole, test)
    kept = checked.check_held_out(dataset, dataset.held_out(whole), len(whole))
    parts = whole.select(np.flatnonzero(~kept)), whole.select(np.flatnonzero(kept), "hold-out")
    seen, banks, sure = zip(*(one.masks(whole, kept, parts) for one in networks))
    bank, trained = np.logical_and.reduce(banks), all(sure)
    if not bank.any():
        raise GradbenchError(
            "the networks of these seeds have no training image in common: run them one by one"
        )
    train = parts[0] if np.array_equal(bank, ~kept) else whole.select(np.flatnonzero(bank))
    # a group of which f has seen one image is not new to it
    ever = np.isin(whole.groups, whole.groups[np.logical_or.reduce(seen)])
    if not (kept & ever).any():
        return InDistribution(train, parts[1], test, part(test, limit), Knowledge(trained=trained))

    wanted, free = int(kept.sum()), whole.select(np.flatnonzero(~ever), "hold-out")
    if len(free) >= min(wanted, LEAST):
        some = part(free, wanted)
        return InDistribution(train, some, test, part(test, limit), Knowledge(trained=trained))
    may = "was" if trained else "may have been"
    but = f"all but {len(free)}" if len(free) else "all"
    why = f"f {may} trained on {but} training images"
    if any(one.prints is not None and own.all() for one, own in zip(networks, seen)):
        why += f", and {OTHER_PRINTS}"
    return _from_test(train, parts[1], test, limit, Knowledge("test", True, trained, why))


def _from_test(
    train: ImageSet, kept: ImageSet, test: ImageSet, limit: int | None, known: Knowledge
) -> InDistribution:
    """Take the hold-out from the test images, or say that they are too few.

    It is of those that `limit` would name last: a part that is measured stays the same where
    enough other images are left.
    """
    count = min(len(kept), len(test) // SPARED)
    if count < min(len(kept), LEAST):
        why = f"{known.why}, and {len(test)} test images are too few to take others from"
        known = replace(known, role="train", unseen=False, why=why)
        kept = replace(kept, note=join_notes(kept.note, "f may have been trained on these"))
        return InDistribution(train, kept, test, part(test, limit), known)
    last = ~hold_out(test.labels, test.groups, len(test) - count)
    if limit is None or limit > len(test) - count:
        normal = test.select(np.flatnonzero(~last))
    else:
        normal = part(test, limit)
    rows = np.flatnonzero(last & ~np.isin(test.groups, normal.groups))
    held = test.select(rows, "hold-out")
    held = replace(held, note=join_notes(held.note, "test images, which are not measured"))
    return InDistribution(train, held, test, normal, known)


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
