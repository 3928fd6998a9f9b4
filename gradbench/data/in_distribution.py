"""The in-distribution images of a run: bank, hold-out and test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gradbench.data import checked
from gradbench.data.dataset import Dataset, DataSettings, MissingData
from gradbench.data.imageset import ImageSet, join_notes
from gradbench.data.labels import match_labels
from gradbench.data.roles import draw_hold_out, stratified_subset
from gradbench.data.training_record import Provenance, TrainingRecord
from gradbench.errors import GradbenchError

OTHER_FINGERPRINTS = "its checkpoint tells of other images or another hold-out than these"
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
            of the test set; see `provenance`.
        test: clean test images, all of them.
        normal: those test images that are the normal side of every measurement.
        provenance: whether f was trained on the bank and on the hold-out.
    """

    train: ImageSet
    hold_out: ImageSet
    test: ImageSet
    normal: ImageSet
    provenance: Provenance = field(default_factory=Provenance)


def load_in_distribution(
    dataset: Dataset,
    settings: DataSettings,
    limit: int | None = None,
    networks: Sequence[TrainingRecord] = (TrainingRecord(),),
) -> InDistribution:
    """Load the in-distribution images and give every image its role.

    Args:
        dataset: the in-distribution set.
        settings: where it is looked for.
        limit: class-stratified number of test images to measure on, the same ones in every run;
            None for all.
        networks: what the measured ones were trained on; the hold-out serves all of them.

    Raises:
        MissingData: if images are missing, or too few of the training set are at hand.
        GradbenchError: if the set has no such role, its files are damaged, the classes of the test
            images are not those of the training images, or a list of training images does not fit.
    """
    whole = checked.load(dataset, "train", settings)
    if reason := why_scarce(dataset, whole.split, len(whole), settings):
        raise MissingData(reason)
    test = match_labels(checked.load(dataset, "test", settings), whole)
    for network in networks:
        network.check(whole, test)
    kept = checked.check_held_out(dataset, dataset.held_out(whole), len(whole))
    parts = whole.select(np.flatnonzero(~kept)), whole.select(np.flatnonzero(kept), "hold-out")
    seen, banks, certain = zip(*(network.masks(whole, kept, parts) for network in networks))
    bank, trained = np.logical_and.reduce(banks), all(certain)
    if not bank.any():
        raise GradbenchError(
            "the networks of these seeds have no training image in common: run them one by one"
        )
    train = parts[0] if np.array_equal(bank, ~kept) else whole.select(np.flatnonzero(bank))
    # a group of which f has seen one image is not new to it
    ever = np.isin(whole.groups, whole.groups[np.logical_or.reduce(seen)])
    normal, provenance = stratified_subset(test, limit), Provenance(trained=trained)
    if not (kept & ever).any():
        return InDistribution(train, parts[1], test, normal, provenance)

    wanted, free = int(kept.sum()), whole.select(np.flatnonzero(~ever), "hold-out")
    if len(free) >= min(wanted, LEAST):
        return InDistribution(train, stratified_subset(free, wanted), test, normal, provenance)
    may = "was" if trained else "may have been"
    but = f"all but {len(free)}" if len(free) else "all"
    reason = f"f {may} trained on {but} training images"
    if any(one.fingerprints is not None and own.all() for one, own in zip(networks, seen)):
        reason += f", and {OTHER_FINGERPRINTS}"
    return _hold_out_of_test(train, parts[1], test, limit, replace(provenance, reason=reason))


def _hold_out_of_test(
    train: ImageSet, kept: ImageSet, test: ImageSet, limit: int | None, provenance: Provenance
) -> InDistribution:
    """Take the hold-out from the test images, or say that they are too few.

    It is of those that `limit` would choose last: a part that is measured stays the same where
    enough other images are left.
    """
    count = min(len(kept), len(test) // SPARED)
    if count < min(len(kept), LEAST):
        reason = f"{provenance.reason}, and {len(test)} test images are too few to take others from"
        provenance = replace(provenance, unseen=False, reason=reason)
        kept = replace(kept, note=join_notes(kept.note, "f may have been trained on these"))
        return InDistribution(train, kept, test, stratified_subset(test, limit), provenance)
    last = ~draw_hold_out(test.labels, test.groups, len(test) - count)
    if limit is None or limit > len(test) - count:
        normal = test.select(np.flatnonzero(~last))
    else:
        normal = stratified_subset(test, limit)
    held = test.select(np.flatnonzero(last & ~np.isin(test.groups, normal.groups)), "hold-out")
    held = replace(held, note=join_notes(held.note, "test images, which are not measured"))
    return InDistribution(train, held, test, normal, replace(provenance, role="test"))


def why_scarce(dataset: Dataset, split: str, count: int, settings: DataSettings) -> str:
    """Return why a part of a training set is too small to train and measure on, else ""."""
    official = dataset.counts.get(split, 0)
    if count >= SCARCE * official:
        return ""
    return (
        f"{dataset.name} cannot be the in-distribution set here: {count:,} of {official:,} "
        f"training images are at hand, and at least {SCARCE:.0%} are needed to train and judge a "
        f"network: put the whole set at {settings.root / dataset.name}"
    )
