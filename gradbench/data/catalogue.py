"""The catalogue of data sets: which there are, what is on this machine, how to have the rest.

Imports no torch: `gradbench list` and `gradbench data list` answer at once.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gradbench.config import group_files, load_member
from gradbench.data.dataset import Dataset, DataSettings
from gradbench.errors import GradbenchError
from gradbench.support.instantiate import check_arguments, import_hint

UNCOUNTED = "files, not counted"
SHOWN = 3
"""Splits of a set that are named one by one."""


@dataclass(frozen=True)
class LocalSplit:
    """A split of a data set on this machine.

    Attributes:
        location: file or folder that it is read from, None for what is embedded.
        count: images, None where only reading would tell.
        official: images of the published split, 0 where there is none.
        status: that of an `ImageSet`, or `damaged`, or that image files were not counted.
    """

    split: str
    location: Path | None
    count: int | None
    official: int
    status: str

    def __str__(self) -> str:
        """Return name and number: `train 8,600 of 39,209`."""
        if self.count is None:
            return self.split
        of = f" of {self.official:,}" if self.official > self.count else ""
        return f"{self.split} {self.count:,}{of}"


@dataclass(frozen=True)
class CatalogueEntry:
    """A data set in the list.

    Attributes:
        local: splits on this machine.
        missing: the other splits that it has.
        hosts: servers that the published files can be downloaded from.
        size: bytes of all downloads, None where one does not tell or there is none.
        terms: licence in a line.
        fault: why nothing is known, for example a path to be set.
    """

    name: str
    local: tuple[LocalSplit, ...] = ()
    missing: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    size: int | None = None
    terms: str = ""
    fault: str = ""

    @property
    def summary(self) -> str:
        """What there is on this machine, in words."""
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


def build_dataset(
    name: str, dirs: Iterable[Path] = (), changes: Mapping[str, Any] | None = None
) -> Dataset:
    """Build a data set from its file, with some settings changed.

    `support.instantiate` does so for runs, and needs seconds for Hydra.

    Raises:
        GradbenchError: for an unknown name, a class that is not found or a setting it refuses.
    """
    content = load_member("dataset", name, dirs, resolve=False) | dict(changes or {})
    target = content.pop("_target_", "")
    module, _, kind = str(target).rpartition(".")
    try:
        make = getattr(importlib.import_module(module), kind)
    except (ImportError, AttributeError, ValueError) as fault:
        hint = import_hint(str(fault))
        raise GradbenchError(
            f"dataset {name}: {target} cannot be imported ({fault}){hint}"
        ) from fault
    check_arguments(make, content, f"dataset {name}")
    try:
        return make(**content)
    except (TypeError, ValueError) as fault:
        raise GradbenchError(f"dataset {name}: {fault}") from fault


def local_splits(dataset: Dataset, settings: DataSettings) -> list[LocalSplit]:
    """Return the splits of a data set that are on this machine, by headers and names alone."""
    found = []
    for split in dataset.all_splits():
        if not dataset.is_local(split, settings):
            continue
        official, count = dataset.counts.get(split, 0), None
        location = dataset.location(split, settings)
        try:
            count, restored = dataset.count(split, settings)
            status = dataset.status or ("official" if location is None else UNCOUNTED)
            if count is not None:
                arrays = location is not None and location.suffix == ".npz"
                resized = arrays and bool(dataset.copy_note)
                status = dataset.copy_status(split, count, restored or resized)
        except GradbenchError:
            status = "damaged"
        found.append(LocalSplit(split, location, count, official, status))
    return found


def list_datasets(settings: DataSettings, dirs: Iterable[Path] = ()) -> list[CatalogueEntry]:
    """Return every data set that has a file, with its splits on this machine."""
    return [_entry(name, settings, dirs) for name in group_files("dataset", dirs)]


def _entry(name: str, settings: DataSettings, dirs: Iterable[Path]) -> CatalogueEntry:
    try:
        dataset = build_dataset(name, dirs)
    except GradbenchError as fault:
        return CatalogueEntry(name, fault=f"needs settings ({fault})")
    reasons = {dataset.ready(role, settings) for role in dataset.roles}
    local = tuple(local_splits(dataset, settings))
    sizes = [archive.get("bytes") for archive in dataset.archives]
    return CatalogueEntry(
        name,
        local,
        tuple(s for s in dataset.all_splits() if s not in {split.split for split in local}),
        tuple(dict.fromkeys(urlsplit(a["url"]).hostname or "" for a in dataset.archives)),
        sum(sizes) if sizes and None not in sizes else None,
        dataset.terms,
        "set path" if reasons == {"set path"} else "",
    )


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
