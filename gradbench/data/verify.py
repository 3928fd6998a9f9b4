"""Checks the images of a data set on this machine against what is known of the set."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gradbench.data.dataset import Dataset, DataSettings, MissingData
from gradbench.data.download import digest
from gradbench.data.raw import UNLABELLED, Raw
from gradbench.errors import GradbenchError
from gradbench.support.progress import step

BLOCK = 1000
"""Images that are read at a time."""
REPEATS = 0.05
"""Share of repeated images above which a set is damaged; published sets hold a few."""
HALVES = ("train", "test")
FAULTS = (GradbenchError, OSError, ValueError, LookupError, TypeError, EOFError)
"""What the reading of foreign files ends in."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        split: of the set, or `train, test` for what concerns both.
        what: was looked at.
        verdict: `ok`; `note` for what a reader must know; `differs` for damage.
        detail: what was found.
    """

    split: str
    what: str
    verdict: str
    detail: str


def verify(dataset: Dataset, settings: DataSettings) -> Iterator[Check]:
    """Read what is here of a data set and check it.

    Raises:
        MissingData: if nothing of it is here.
    """
    splits = [split for split in dataset.every_split() if dataset.here(split, settings)]
    if not splits:
        raise MissingData(_nothing(dataset, settings))
    seen: dict[str, Counter] = {}
    for split in splits:
        yield from _published(dataset, split, settings)
        try:
            with step(f"reading {dataset.name} {split}"):
                raw = dataset.read(split, settings)
                prints = _fingerprints(raw)
        except FAULTS as fault:
            yield Check(split, "files", "differs", " ".join(str(fault).split()))
            continue
        place = dataset.where(split, settings)
        yield Check(split, "files", "ok", "embedded" if place is None else f"{place} is whole")
        if raw.note:
            yield Check(split, "copy", "note", raw.note)
        yield _count(dataset, split, len(raw.labels))
        yield _form(dataset, split, raw)
        yield from _labels(dataset, split, raw)
        if dataset.groups == "track":
            yield _tracks(dataset, split, raw)
        yield _repeats(split, prints)
        with step(f"checks of {dataset.name} {split}"):
            own = list(dataset.own_checks(split, raw, settings))
        yield from (Check(split, what, verdict, detail) for what, verdict, detail in own)
        if split in HALVES:
            seen[split] = prints
    if len(seen) == len(HALVES):
        yield _overlap(*(seen[split] for split in HALVES))


def _nothing(dataset: Dataset, settings: DataSettings) -> str:
    split = dataset.every_split()[0]
    if dataset.downloads(split):
        return f"{dataset.name} is not on this machine: `gradbench data fetch {dataset.name}`"
    try:
        dataset.may_fetch(split, settings)
    except MissingData as reason:
        return str(reason)
    return f"{dataset.name} is not on this machine"


def _published(dataset: Dataset, split: str, settings: DataSettings) -> Iterator[Check]:
    """Compare published files with their checksums."""
    right, wrong = [], []
    for path, (kind, wanted) in dataset.checksums(split, settings).items():
        (right if digest(path, kind) == wanted else wrong).append(path)
    for path in wrong:
        yield Check(split, "checksum", "differs", f"{path} is not the published file")
    if right and not wrong:
        yield Check(split, "checksum", "ok", f"{_files(right)} as published")


def _files(paths: list[Path]) -> str:
    return paths[0].name if len(paths) == 1 else f"{len(paths)} files of {paths[0].parent}"


def _fingerprints(raw: Raw) -> Counter:
    """Return how often each image occurs, by a digest of its pixels; reads all of them."""
    prints: Counter = Counter()
    for start in range(0, len(raw.labels), BLOCK):
        for image in np.ascontiguousarray(raw.images[start : start + BLOCK]):
            prints[hashlib.blake2b(image, digest_size=16).digest()] += 1
    return prints


def _count(dataset: Dataset, split: str, count: int) -> Check:
    official, least = dataset.counts.get(split), dataset.least.get(split, 0)
    if count < least:
        return Check(split, "count", "note", f"a part: {count:,} of at least {least:,} images")
    if official is None:
        return Check(split, "count", "ok", f"{count:,} images, no official number is known")
    if count == official:
        return Check(split, "count", "ok", f"{count:,} images")
    verdict = "note" if count < official else "differs"
    part = "a part: " if count < official else ""
    return Check(split, "count", verdict, f"{part}{count:,} of {official:,} images")


def _form(dataset: Dataset, split: str, raw: Raw) -> Check:
    """Compare size and channels with those of the set."""
    native = getattr(raw.images, "native", None)
    size = f"{raw.images.shape[3]}x{raw.images.shape[2]}"
    colour = {1: "grey", 3: "RGB"}[raw.images.shape[1]]
    found = f"{native or size} {colour}, {raw.images.dtype}"
    wanted = dataset.shape
    if native is not None or wanted is None or tuple(raw.images.shape[1:]) == tuple(wanted):
        return Check(split, "form", "ok", found)
    # a copy whose maker chose the size is no damage, nor is a user's own set that is reshaped
    free = bool(dataset.copy_note) or split not in dataset.counts
    expected = f"{wanted[2]}x{wanted[1]} {'grey' if wanted[0] == 1 else 'RGB'}"
    return Check(split, "form", "note" if free else "differs", f"{found}; the set: {expected}")


def _labels(dataset: Dataset, split: str, raw: Raw) -> Iterator[Check]:
    """Look at the range of labels and at the number of images in each class."""
    classes, labels = raw.classes or dataset.classes, raw.labels
    least, most = int(labels.min()), int(labels.max())
    if least == most == UNLABELLED:
        yield Check(split, "labels", "note", "none: the images can only be a challenge")
        return
    different = len(np.unique(labels))
    if least < 0 or most >= (len(classes) or 2 * different):  # as `check_labels` has it
        allowed = f"0 to {len(classes or range(different)) - 1}"
        yield Check(split, "labels", "differs", f"{least} to {most}, the classes are {allowed}")
        return
    yield Check(split, "labels", "ok", f"{least} to {most}")
    sizes = np.bincount(labels, minlength=len(classes))
    empty = int((sizes == 0).sum())
    low, high = sizes[sizes > 0].min(), sizes.max()
    each = f"{high:,} images each" if low == high else f"{low:,} to {high:,} images each"
    detail = f"{len(sizes)} {'class' if len(sizes) == 1 else 'classes'}, {each}"
    verdict = "ok"
    if empty:
        whole = len(labels) >= dataset.counts.get(split, len(labels) + 1)
        verdict, detail = "differs" if whole else "note", f"{detail}, {empty} without any"
    yield Check(split, "classes", verdict, detail)


def _tracks(dataset: Dataset, split: str, raw: Raw) -> Check:
    """Look whether the names tell which frames belong to one track."""
    from gradbench.data.dress import sources_and_groups

    try:
        groups = sources_and_groups(dataset, raw, split)[1]
    except GradbenchError as fault:
        return Check(split, "tracks", "differs", str(fault))
    count = len(np.unique(groups))
    alone = "no frames repeat" if count == len(groups) else f"{count:,} tracks"
    return Check(split, "tracks", "ok", alone)


def _repeats(split: str, prints: Counter) -> Check:
    extra = prints.total() - len(prints)
    if not extra:
        return Check(split, "repeats", "ok", "no image twice")
    verdict = "differs" if extra > REPEATS * prints.total() else "note"
    return Check(split, "repeats", verdict, f"{extra:,} images are equal to another one")


def _overlap(train: Counter, test: Counter) -> Check:
    shared = sum(number for mark, number in test.items() if mark in train)
    if not shared:
        return Check("train, test", "overlap", "ok", "no test image is a training image")
    verdict = "differs" if shared > REPEATS * test.total() else "note"
    return Check("train, test", "overlap", verdict, f"{shared:,} test images are training images")
