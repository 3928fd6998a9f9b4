"""The in-distribution images of a run, and which of them its networks were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from gradbench.data import checked
from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.image_lists import Benchmark
from gradbench.data.imageset import ImageSet, join_notes
from gradbench.data.labels import match_labels
from gradbench.data.roles import draw_hold_out, stratified_subset
from gradbench.errors import GradbenchError, MissingData

ALL, WITHOUT_HOLD_OUT = "all", "without_hold_out"
TRAINED_ON = "backbone.trained_on"
OTHER_FINGERPRINTS = "its checkpoint tells of other images or another hold-out than these"
SCARCE = 0.05  # share of a published training set below which a copy is not taken for it
LEAST = 100
"""Images of a hold-out, at least, unless a smaller one is asked for: of fewer, a threshold that
keeps 95 % is off by several percent."""
SPARED = 3  # at most one of so many test images is taken for the hold-out


@dataclass(frozen=True)
class TrainingRecord:
    """The facts that are known of the images that one network was trained on."""

    extent: str = WITHOUT_HOLD_OUT  # or `all` of the training set
    sources: frozenset[str] | None = None  # ids of the images, in place of `extent`
    file: str = ""  # that lists the ids
    # of the training images and of the hold-out (`train`, `hold_out`), as a checkpoint of
    # gradbench's own keeps them; they go before `extent` where they fit
    fingerprints: Mapping[str, str] | None = None
    certain: bool = True  # somebody said so; otherwise `all` is only assumed

    def check(self, whole: ImageSet, test: ImageSet) -> None:
        """Refuse a list that has nothing to do with the set, or names images to be measured."""
        if self.sources is None:
            return
        setting = f"{TRAINED_ON}={self.file}"
        if self.sources.isdisjoint(whole.sources.tolist()):
            raise GradbenchError(
                f"{setting} names no training image of {whole.name}: write the names of those that "
                f"the network was trained on, one a line, for example {whole.sources[0]}"
            )
        tested = sorted(self.sources.intersection(test.sources.tolist()))
        if tested:
            raise GradbenchError(
                f"{setting} names {len(tested):,} test images ({tested[0]}), and a network cannot "
                "be measured on images that it was trained on: take them out of the test set"
            )

    def masks(
        self, whole: ImageSet, held: np.ndarray, parts: tuple[ImageSet, ImageSet]
    ) -> tuple[np.ndarray, np.ndarray, bool]:
        """Return which images f may have seen, which are the bank, and whether it saw all of that.

        `held` (N,) marks the images of the whole training set that gradbench keeps from its own
        networks; `parts` are those without and with the mark.
        """
        if self.sources is not None:
            listed = np.isin(whole.sources, list(self.sources))
            return listed, listed, True
        usual = self.extent == WITHOUT_HOLD_OUT
        if self.fingerprints is not None:
            usual = all(
                self.fingerprints.get(name) == part.fingerprint
                for name, part in zip(("train", "hold_out"), parts)
            )
        if usual:
            return ~held, ~held, True
        return np.ones(len(whole), bool), ~held, self.certain


@dataclass(frozen=True)
class Provenance:
    """Whether f was trained on the bank and on the hold-out; by default as for own networks."""

    role: str = "train"  # or `test`: of whose images the hold-out is taken
    unseen: bool = True  # f was trained on no image of the hold-out
    trained: bool = True  # f was trained on every image of the bank; otherwise it may have been
    reason: str = ""  # why the hold-out is not the usual one

    @property
    def hold_out_name(self) -> str:
        """The name of the hold-out."""
        if not self.unseen:
            return "hold-out that f may have been trained on"
        return "hold-out" if self.role == "train" else "hold-out of test images"

    @property
    def threshold_note(self) -> str:
        """A note on the images that a threshold comes from, empty for the usual ones."""
        if not self.unseen:
            return "f may have been trained on them, so more than 5 % of new ones may be above"
        return "" if self.role == "train" else "taken from the test images"

    def describe_clean_seen(self, clean_seen: str) -> str:
        """Return a detector's `clean_seen` with the names that its images have in this run."""
        bank = "f's training images" if self.trained else "images that f may have been trained on"
        names = {"hold-out": self.hold_out_name, "f's training images": bank}
        return ", ".join(names.get(part, part) for part in clean_seen.split(", "))

    def describe_hold_out(self, hold_out: ImageSet, test: ImageSet) -> str:
        """Return the size and the origin of the hold-out in words, without a full stop."""
        count = f"{len(hold_out):,}"
        if not len(hold_out):
            return "none"
        if not self.unseen:
            return f"{count} training images that f may have been trained on: {self.reason}"
        if self.role == "test":
            return f"{count} of {len(test):,} test images, which are not measured: {self.reason}"
        return f"{count} training images that f was not trained on"


@dataclass(frozen=True)
class InDistribution:
    """The clean images of a run."""

    train: ImageSet  # that f is trained on, also the bank
    hold_out: ImageSet  # that f never sees, of the training set or else of the test set
    test: ImageSet  # all clean test images
    normal: ImageSet  # those of them that are the normal side of every measurement
    provenance: Provenance = field(default_factory=Provenance)


def load_in_distribution(
    dataset: Dataset,
    settings: DataSettings,
    limit: int | None = None,
    networks: Sequence[TrainingRecord] = (TrainingRecord(),),
    benchmark: Benchmark | None = None,
) -> InDistribution:
    """Load the in-distribution images and give every image its role.

    Args:
        dataset: the in-distribution set.
        settings: where it is looked for.
        limit: class-stratified number of test images to measure on, the same ones in every run.
        networks: records of the measured ones; the hold-out serves all of them.
        benchmark: lists of the test images that are measured, and of others for the hold-out of
            networks that were trained on all training images.

    Raises:
        MissingData: if images are missing, or too few of the training set are at hand.
    """
    if benchmark is None:
        whole, spare = checked.load(dataset, "train", settings), None
    else:
        whole, test, listed, spare = benchmark.in_distribution(dataset, settings)
    if reason := why_scarce(dataset, whole.split, len(whole), settings):
        raise MissingData(reason)
    if benchmark is None:
        test = listed = checked.load(dataset, "test", settings)
    test, listed = match_labels(test, whole), match_labels(listed, whole)
    for network in networks:
        network.check(whole, test)
    held = checked.check_held_out(dataset, dataset.held_out(whole), len(whole))
    rest, hold_out = whole.select(np.flatnonzero(~held)), _hold_out(whole, held)
    seen, banks, certain = zip(
        *(network.masks(whole, held, (rest, hold_out)) for network in networks)
    )
    bank, trained = np.logical_and.reduce(banks), all(certain)
    if not bank.any():
        raise GradbenchError(
            "the networks of these seeds have no training image in common: run them one by one"
        )
    train = rest if np.array_equal(bank, ~held) else whole.select(np.flatnonzero(bank))
    # a group of which f has seen one image is not new to it
    ever = np.isin(whole.groups, whole.groups[np.logical_or.reduce(seen)])
    normal, provenance = stratified_subset(listed, limit), Provenance(trained=trained)
    if not (held & ever).any():
        return InDistribution(train, hold_out, test, normal, provenance)

    wanted, free = int(held.sum()), _hold_out(whole, ~ever)
    if len(free) >= min(wanted, LEAST):
        return InDistribution(train, stratified_subset(free, wanted), test, normal, provenance)
    may = "was" if trained else "may have been"
    but = f"all but {len(free)}" if len(free) else "all"
    reason = f"f {may} trained on {but} training images"
    if any(one.fingerprints is not None and mask.all() for one, mask in zip(networks, seen)):
        reason += f", and {OTHER_FINGERPRINTS}"

    if spare is not None and len(spare) >= LEAST:
        spare = replace(spare, split="hold-out")
        provenance = replace(provenance, role="test", reason=reason)
        return InDistribution(train, spare, test, normal, provenance)
    count = min(wanted, len(test) // SPARED) if spare is None else 0
    if count < min(wanted, LEAST):
        reason += f", and {len(test)} test images are too few to take others from"
        note = join_notes(hold_out.note, "f may have been trained on these")
        provenance = replace(provenance, unseen=False, reason=reason)
        return InDistribution(train, replace(hold_out, note=note), test, normal, provenance)
    # those that `limit` would choose last, so that a part that is measured stays the same where
    # enough other images are left
    last = ~draw_hold_out(test.labels, test.groups, len(test) - count)
    if limit is None or limit > len(test) - count:
        normal = test.select(np.flatnonzero(~last))
    spared = _hold_out(test, last & ~np.isin(test.groups, normal.groups))
    spared = replace(spared, note=join_notes(spared.note, "test images, which are not measured"))
    provenance = replace(provenance, role="test", reason=reason)
    return InDistribution(train, spared, test, normal, provenance)


def _hold_out(images: ImageSet, rows: np.ndarray) -> ImageSet:
    return images.select(np.flatnonzero(rows), "hold-out")


def why_scarce(dataset: Dataset, split: str, count: int, settings: DataSettings) -> str:
    """Return why a part of a training set is too small to train and measure on, else ""."""
    official = dataset.counts.get(split, 0)
    if count >= SCARCE * official:
        return ""
    test = " and no test images" if dataset.ready("test", settings) else ""
    return (
        f"{dataset.name} cannot be the in-distribution set here: {count:,} of {official:,} "
        f"training images{test} are at hand, and at least {SCARCE:.0%} are needed to train a "
        "network, or to fit detectors to one that others published: put the whole set at "
        f"{settings.root / dataset.name}"
    )


def read_source_ids(path: str) -> frozenset[str]:
    """Return the source ids in a text file, one a line."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as fault:
        reason = getattr(fault, "strerror", None) or "it is no UTF-8 text"
        raise GradbenchError(
            f"{TRAINED_ON}={path} cannot be read ({reason}): choose {ALL}, {WITHOUT_HOLD_OUT}, or "
            "a file that lists the names of the images, one a line"
        ) from fault
    return frozenset(filter(None, map(str.strip, text.splitlines())))
