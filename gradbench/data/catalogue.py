"""The catalogue of data sets: what is on this machine, whether it is whole, how to have the rest.

Imports no torch: `gradbench list` and `gradbench data list` answer at once.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from gradbench.config import group_files, load_member
from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.download import file_checksum
from gradbench.data.imageset import shards
from gradbench.data.labels import check_labels
from gradbench.data.loading import UNLABELLED
from gradbench.data.resample import CHANNELS
from gradbench.errors import GradbenchError, MissingData
from gradbench.support.instantiate import instantiate
from gradbench.support.progress import step

UNCOUNTED = "files, not counted"
SHOWN = 3  # splits of a set that are named one by one
REPEATS = 0.05  # share of repeated images above which a set is damaged; published sets hold a few


def build_dataset(
    name: str, dirs: Iterable[Path] = (), changes: Mapping[str, Any] | None = None
) -> Dataset:
    """Build a data set from its file, with some settings changed."""
    content = load_member("dataset", name, dirs, resolve=False) | dict(changes or {})
    return instantiate("dataset", name, content, drop=("_target_",), base=Dataset)


# splits on this machine


@dataclass(frozen=True)
class LocalSplit:
    """A split of a data set on this machine."""

    split: str
    location: Path | None  # None for what is embedded
    count: int | None  # of images, None where only reading would tell
    official: int  # images of the published split, 0 where that is not known
    status: str  # that of an `ImageSet`, `damaged`, or that image files were not counted

    def __str__(self) -> str:
        """Return name and number: `train 8,600 of 39,209`."""
        if self.count is None:
            return self.split
        of = f" of {self.official:,}" if self.official > self.count else ""
        return f"{self.split} {self.count:,}{of}"


@dataclass(frozen=True)
class CatalogueEntry:
    """A data set in the list."""

    name: str
    local: tuple[LocalSplit, ...] = ()
    missing: tuple[str, ...] = ()  # the other splits that it has
    hosts: tuple[str, ...] = ()  # servers of the published files
    size: int | None = None  # bytes of all downloads, where all of them tell
    terms: str = ""
    fault: str = ""  # why nothing is known, for example a path to be set

    @property
    def summary(self) -> str:
        """The part that is on this machine, in words."""
        count = len(self.local) + len(self.missing)
        if count > SHOWN and self.local:
            images = sum(split.count or 0 for split in self.local)
            return f"{len(self.local)} of {count} splits, {images:,} images"
        parts = [str(split) for split in self.local]
        if self.missing:
            parts.append(f"no {' or '.join(self.missing)}" if parts else "nothing")
        return self.fault or ", ".join(parts)

    @property
    def status(self) -> str:
        """The status of the copies, each once."""
        return ", ".join(dict.fromkeys(split.status for split in self.local))


def local_splits(dataset: Dataset, settings: DataSettings) -> list[LocalSplit]:
    """Return the splits of a data set that are on this machine, by headers and names alone."""
    local = []
    for split in _splits_here(dataset, settings):
        location, count = dataset.location(split, settings), None
        try:
            count, restored = dataset.count(split, settings)
            status = dataset.status or ("official" if location is None else UNCOUNTED)
            if count is not None:
                arrays = location is not None and location.suffix == ".npz"
                resized = arrays and bool(dataset.copy_note)
                status = dataset.copy_status(split, count, restored or resized)
        except GradbenchError:
            status = "damaged"
        local.append(LocalSplit(split, location, count, dataset.counts.get(split, 0), status))
    return local


def list_datasets(settings: DataSettings, dirs: Iterable[Path] = ()) -> list[CatalogueEntry]:
    """Return every data set that has a file, with its splits on this machine."""
    entries = []
    for name in group_files("dataset", dirs):
        try:
            dataset = build_dataset(name, dirs)
        except GradbenchError as fault:
            entries.append(CatalogueEntry(name, fault=f"needs settings ({fault})"))
            continue
        reasons = {dataset.ready(role, settings) for role in dataset.roles}
        local = tuple(local_splits(dataset, settings))
        here = {split.split for split in local}
        sizes = [archive.get("bytes") for archive in dataset.archives]
        entry = CatalogueEntry(
            name,
            local,
            tuple(split for split in dataset.all_splits() if split not in here),
            tuple(dict.fromkeys(urlsplit(a["url"]).hostname or "" for a in dataset.archives)),
            sum(sizes) if sizes and None not in sizes else None,
            dataset.terms,
            "set path" if reasons == {"set path"} else "",
        )
        entries.append(entry)
    return entries


def _splits_here(dataset: Dataset, settings: DataSettings) -> list[str]:
    return [split for split in dataset.all_splits() if dataset.is_local(split, settings)]


# splits that can be had


def missing_splits(dataset: Dataset, settings: DataSettings) -> list[str]:
    """Return the splits of a set that are not here and have a known download.

    Raises:
        MissingData: if splits are not here and none of them can be had, with the other ways.
    """
    missing = [split for split in dataset.all_splits() if not dataset.is_local(split, settings)]
    downloadable = [split for split in missing if dataset.archives_of(split)]
    if missing and not (downloadable and settings.online):
        raise dataset.missing((downloadable or missing)[:1], settings)
    return downloadable


def download_missing(dataset: Dataset, settings: DataSettings) -> Iterator[str]:
    """Download the missing splits of a set, and yield a line on where each split is.

    Raises:
        MissingData: if a download is not allowed or fails, with the other ways.
    """
    for local in local_splits(dataset, settings):
        where = "embedded" if local.location is None else f"here already, at {local.location}"
        if local.status == "part" and dataset.archives_of(local.split):
            where += "; move this part away and fetch again to have the whole"
        yield f"{dataset.name} {local}: {where}"
    missing = missing_splits(dataset, settings)
    for split in missing:
        if not dataset.is_local(split, settings):  # it may have come with another split
            dataset.download([split], settings)
        yield f"{dataset.name} {split}: fetched to {dataset.location(split, settings)}"
    for split in dataset.all_splits():
        if split not in missing and not dataset.is_local(split, settings):
            yield f"{dataset.name} {split}: not here, no download with a checksum is known"


# checks of splits


class Check(NamedTuple):
    """The result of one check."""

    split: str  # or `train, test` for what concerns both
    subject: str  # the property that was checked
    verdict: str  # `ok`; `note` for what a reader must know; `differs` for damage
    detail: str


def verify(dataset: Dataset, settings: DataSettings) -> Iterator[Check]:
    """Read the splits of a data set that are on this machine and check them.

    Raises:
        MissingData: if nothing of it is here.
    """
    splits = _splits_here(dataset, settings)
    if not splits:
        first = dataset.all_splits()[0]
        if not dataset.archives_of(first):
            raise dataset.missing([first], settings)
        raise MissingData(
            f"{dataset.name} is not on this machine: `gradbench data fetch {dataset.name}`"
        )
    digests: dict[str, Counter] = {}
    for split in splits:
        for finding in _check_split(dataset, split, settings, digests):
            yield Check(split, *finding)
    if {"train", "test"} <= digests.keys():
        shared = sum(n for digest, n in digests["test"].items() if digest in digests["train"])
        verdict = _verdict(shared, digests["test"].total())
        detail = f"{shared:,} test images are training images"
        detail = detail if shared else "no test image is a training image"
        yield Check("train, test", "overlap", verdict, detail)


def _check_split(
    dataset: Dataset, split: str, settings: DataSettings, digests: dict[str, Counter]
) -> Iterator[tuple[str, str, str]]:
    """Yield subject, verdict and detail of all checks of a split; add the images' digests."""
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

    images: Counter = Counter()
    try:
        with step(f"reading {dataset.name} {split}"):
            loaded = dataset.read(split, settings)
            for rows in shards(len(loaded.labels)):
                for image in np.ascontiguousarray(loaded.images[rows]):
                    images[hashlib.blake2b(image, digest_size=16).digest()] += 1
    except Exception as fault:  # a user's own class may raise anything
        yield "files", "differs", " ".join(str(fault).split())
        return
    digests[split] = images
    location = dataset.location(split, settings)
    yield "files", "ok", "embedded" if location is None else f"{location} is whole"
    if loaded.note:
        yield "copy", "note", loaded.note

    count, official = len(loaded.labels), dataset.counts.get(split)
    if count < dataset.least.get(split, 0):
        yield "count", "note", f"a part: {count:,} of at least {dataset.least[split]:,} images"
    elif official is None:
        yield "count", "ok", f"{count:,} images, no official number is known"
    elif count < official:
        yield "count", "note", f"a part: {count:,} of {official:,} images"
    elif count > official:
        yield "count", "differs", f"{count:,} of {official:,} images"
    else:
        yield "count", "ok", f"{count:,} images"

    channels, height, width = loaded.images.shape[1:]
    native, due = getattr(loaded.images, "native", ""), dataset.shape
    form = f"{native or f'{width}x{height}'} {CHANNELS[channels]}, {loaded.images.dtype}"
    if native or due is None or (channels, height, width) == due:
        yield "form", "ok", form
    else:
        # a copy whose maker chose the size is no damage, nor is a user's own set that is reshaped
        verdict = "note" if dataset.copy_note or official is None else "differs"
        yield "form", verdict, f"{form}; the set: {due[2]}x{due[1]} {CHANNELS[due[0]]}"

    whole = official is not None and count >= official
    classes = loaded.classes or dataset.classes
    yield from _check_labels(loaded.labels, classes, f"{dataset.name}/{split}", whole)
    if dataset.groups == "track":
        try:
            tracks = len(np.unique(dataset.sources_and_groups(loaded, split)[1]))
            detail = "no frames repeat" if tracks == count else f"{tracks:,} tracks"
            yield "tracks", "ok", detail
        except GradbenchError as fault:
            yield "tracks", "differs", str(fault)
    repeated = count - len(images)
    detail = f"{repeated:,} images are equal to another one" if repeated else "no image twice"
    yield "repeats", _verdict(repeated, count), detail
    with step(f"checks of {dataset.name} {split}"):
        extra = list(dataset.extra_checks(split, loaded, settings))
    yield from extra


def _verdict(repeated: int, total: int) -> str:
    if not repeated:
        return "ok"
    return "differs" if repeated > REPEATS * total else "note"


def _check_labels(
    labels: np.ndarray, classes: Sequence[str], place: str, whole: bool
) -> Iterator[tuple[str, str, str]]:
    """Check the range of labels and the number of images in each class."""
    if (labels == UNLABELLED).all():
        yield "labels", "note", "none: the images can only be a challenge"
        return
    try:
        check_labels(labels, classes, place, training=True)
    except GradbenchError as fault:
        yield "labels", "differs", str(fault)
        return
    yield "labels", "ok", f"{labels.min()} to {labels.max()}"
    sizes = np.bincount(labels, minlength=len(classes))
    empty = int((sizes == 0).sum())
    low, high = sizes[sizes > 0].min(), sizes.max()
    each = f"{high:,} images each" if low == high else f"{low:,} to {high:,} images each"
    detail = f"{len(sizes)} {'class' if len(sizes) == 1 else 'classes'}, {each}"
    if empty:  # damage of a whole copy, usual in a part
        yield "classes", "differs" if whole else "note", f"{detail}, {empty} without any"
    else:
        yield "classes", "ok", detail
