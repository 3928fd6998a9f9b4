"""Checks the images of a data set on this machine against the description of the set."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.download import file_checksum
from gradbench.data.imageset import shards
from gradbench.data.loading import UNLABELLED, LoadedSplit
from gradbench.data.resample import CHANNELS
from gradbench.errors import GradbenchError, MissingData
from gradbench.support.progress import step

REPEATS = 0.05
"""Share of repeated images above which a set is damaged; published sets hold a few."""
FAULTS = (GradbenchError, OSError, ValueError, LookupError, TypeError, EOFError)
"""What the readers of damaged files raise."""

Finding = tuple[str, str, str]
"""Subject, verdict and detail of a check of one split."""


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        split: of the set, or `train, test` for what concerns both.
        subject: the property that was checked.
        verdict: `ok`; `note` for what a reader must know; `differs` for damage.
        detail: the finding.
    """

    split: str
    subject: str
    verdict: str
    detail: str


def verify(dataset: Dataset, settings: DataSettings) -> Iterator[Check]:
    """Read the splits of a data set that are on this machine and check them.

    Raises:
        MissingData: if nothing of it is here.
    """
    splits = [split for split in dataset.all_splits() if dataset.is_local(split, settings)]
    if not splits:
        first = dataset.all_splits()[0]
        if not dataset.archives_of(first):
            raise dataset.missing([first], settings)
        raise MissingData(
            f"{dataset.name} is not on this machine: `gradbench data fetch {dataset.name}`"
        )
    digests: dict[str, Counter] = {}
    for split in splits:
        for subject, verdict, detail in _check_split(dataset, split, settings, digests):
            yield Check(split, subject, verdict, detail)
    if {"train", "test"} <= digests.keys():
        shared = sum(n for digest, n in digests["test"].items() if digest in digests["train"])
        verdict = _verdict(shared, digests["test"].total())
        detail = f"{shared:,} test images are training images"
        detail = detail if shared else "no test image is a training image"
        yield Check("train, test", "overlap", verdict, detail)


def _check_split(
    dataset: Dataset, split: str, settings: DataSettings, digests: dict[str, Counter]
) -> Iterator[Finding]:
    """Yield the findings of all checks of a split, and add the digests of its images."""
    yield from _check_checksums(dataset, split, settings)
    try:
        with step(f"reading {dataset.name} {split}"):
            loaded = dataset.read(split, settings)
            found: Counter = Counter()
            for rows in shards(len(loaded.labels)):
                for image in np.ascontiguousarray(loaded.images[rows]):
                    found[hashlib.blake2b(image, digest_size=16).digest()] += 1
    except FAULTS as fault:
        yield "files", "differs", " ".join(str(fault).split())
        return
    digests[split] = found
    location = dataset.location(split, settings)
    yield "files", "ok", "embedded" if location is None else f"{location} is whole"
    if loaded.note:
        yield "copy", "note", loaded.note
    yield _check_count(dataset, split, len(loaded.labels))
    yield _check_form(dataset, split, loaded)
    yield from _check_labels(dataset, split, loaded)
    if dataset.groups == "track":
        yield _check_tracks(dataset, split, loaded)
    repeated = found.total() - len(found)
    detail = f"{repeated:,} images are equal to another one" if repeated else "no image twice"
    yield "repeats", _verdict(repeated, found.total()), detail
    with step(f"checks of {dataset.name} {split}"):
        extra = list(dataset.extra_checks(split, loaded, settings))
    yield from extra


def _verdict(repeated: int, total: int) -> str:
    if not repeated:
        return "ok"
    return "differs" if repeated > REPEATS * total else "note"


def _check_checksums(dataset: Dataset, split: str, settings: DataSettings) -> Iterator[Finding]:
    """Compare published files with their checksums."""
    checksums = dataset.checksums(split, settings)
    wrong = [
        path for path, (kind, value) in checksums.items() if file_checksum(path, kind) != value
    ]
    for path in wrong:
        yield "checksum", "differs", f"{path} is not the published file"
    if checksums and not wrong:
        first = next(iter(checksums))
        files = first.name if len(checksums) == 1 else f"{len(checksums)} files of {first.parent}"
        yield "checksum", "ok", f"{files} as published"


def _check_count(dataset: Dataset, split: str, count: int) -> Finding:
    official, least = dataset.counts.get(split), dataset.least.get(split, 0)
    if count < least:
        return "count", "note", f"a part: {count:,} of at least {least:,} images"
    if official is None:
        return "count", "ok", f"{count:,} images, no official number is known"
    if count < official:
        return "count", "note", f"a part: {count:,} of {official:,} images"
    if count > official:
        return "count", "differs", f"{count:,} of {official:,} images"
    return "count", "ok", f"{count:,} images"


def _check_form(dataset: Dataset, split: str, loaded: LoadedSplit) -> Finding:
    """Compare size and channels with those of the set."""
    channels, height, width = loaded.images.shape[1:]
    native = getattr(loaded.images, "native", "")
    form = f"{native or f'{width}x{height}'} {CHANNELS[channels]}, {loaded.images.dtype}"
    wanted = dataset.shape
    if native or wanted is None or (channels, height, width) == tuple(wanted):
        return "form", "ok", form
    # a copy whose maker chose the size is no damage, nor is a user's own set that is reshaped
    verdict = "note" if dataset.copy_note or split not in dataset.counts else "differs"
    return "form", verdict, f"{form}; the set: {wanted[2]}x{wanted[1]} {CHANNELS[wanted[0]]}"


def _check_labels(dataset: Dataset, split: str, loaded: LoadedSplit) -> Iterator[Finding]:
    """Check the range of labels and the number of images in each class."""
    classes, labels = loaded.classes or dataset.classes, loaded.labels
    least, most = int(labels.min()), int(labels.max())
    if least == most == UNLABELLED:
        yield "labels", "note", "none: the images can only be a challenge"
        return
    different = len(np.unique(labels))
    if least < 0 or most >= (len(classes) or 2 * different):  # as `check_labels` has it
        allowed = f"0 to {(len(classes) or different) - 1}"
        yield "labels", "differs", f"{least} to {most}, the classes are {allowed}"
        return
    yield "labels", "ok", f"{least} to {most}"
    sizes = np.bincount(labels, minlength=len(classes))
    empty = int((sizes == 0).sum())
    low, high = sizes[sizes > 0].min(), sizes.max()
    each = f"{high:,} images each" if low == high else f"{low:,} to {high:,} images each"
    detail = f"{len(sizes)} {'class' if len(sizes) == 1 else 'classes'}, {each}"
    if not empty:
        yield "classes", "ok", detail
        return
    whole = len(labels) >= dataset.counts.get(split, len(labels) + 1)
    yield "classes", "differs" if whole else "note", f"{detail}, {empty} without any"


def _check_tracks(dataset: Dataset, split: str, loaded: LoadedSplit) -> Finding:
    """Check whether the names say which frames belong to one track."""
    try:
        groups = dataset.sources_and_groups(loaded, split)[1]
    except GradbenchError as fault:
        return "tracks", "differs", str(fault)
    count = len(np.unique(groups))
    return "tracks", "ok", "no frames repeat" if count == len(groups) else f"{count:,} tracks"
