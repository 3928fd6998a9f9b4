"""What there is of every data set on this machine, and where the rest can be had.

Imports no torch: `gradbench list` and `gradbench data list` answer at once.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gradbench.config import group_files, read_member
from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.raw import standing
from gradbench.errors import GradbenchError
from gradbench.support.instantiate import check_arguments
from gradbench.support.paths import where_to_look

UNCOUNTED = "files, not counted"
SHOWN = 3
"""Splits of a set that are named one by one."""


@dataclass(frozen=True)
class Held:
    """A split of a data set on this machine.

    Attributes:
        split: its name.
        place: file or folder that it is read from, None for what is embedded.
        count: images, None where only reading would tell.
        official: images of the published split, 0 where there is none.
        status: `official`, `part`, `regenerated`, `stand_in`, `damaged`, or that image files were
            not counted.
    """

    split: str
    place: Path | None
    count: int | None
    official: int
    status: str

    def __str__(self) -> str:
        """Name and number: `train 8,600 of 39,209`."""
        if self.count is None:
            return self.split
        of = f" of {self.official:,}" if self.official > self.count else ""
        return f"{self.split} {self.count:,}{of}"


@dataclass(frozen=True)
class Entry:
    """A data set in the list.

    Attributes:
        name: of the set.
        held: splits on this machine.
        missing: the other splits that it has.
        hosts: servers that the published files can be downloaded from.
        size: bytes of all downloads, None where that is not known.
        terms: licence in a line.
        fault: why nothing can be told, for example a path to be set.
    """

    name: str
    held: tuple[Held, ...] = ()
    missing: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    size: int | None = None
    terms: str = ""
    fault: str = ""

    @property
    def here(self) -> str:
        """What there is, in words."""
        splits = len(self.held) + len(self.missing)
        if splits > SHOWN and self.held:
            images = sum(held.count or 0 for held in self.held)
            return f"{len(self.held)} of {splits} splits, {images:,} images"
        there = [str(held) for held in self.held]
        if self.missing:
            there.append(f"no {' or '.join(self.missing)}" if there else "nothing")
        return self.fault or ", ".join(there)

    @property
    def status(self) -> str:
        """The status of the copies, each once."""
        return ", ".join(dict.fromkeys(held.status for held in self.held))


def known(
    name: str, dirs: Iterable[Path] = (), changes: Mapping[str, Any] | None = None
) -> Dataset:
    """Build a data set from its file.

    Args:
        name: of a file in configs/dataset.
        dirs: folders of the user's own configuration files.
        changes: settings in place of those in the file.

    Raises:
        GradbenchError: for an unknown name, a class that is not found or a setting it refuses.
    """
    content = read_member("dataset", name, dirs) | dict(changes or {})
    target = content.pop("_target_", "")
    module, _, kind = str(target).rpartition(".")
    try:
        make = getattr(importlib.import_module(module), kind)
    except (ImportError, AttributeError, ValueError) as fault:
        hint = where_to_look(str(fault))
        raise GradbenchError(
            f"dataset {name}: {target} cannot be imported ({fault}){hint}"
        ) from fault
    check_arguments(make, content, f"dataset {name}")
    try:
        return make(**content)
    except (TypeError, ValueError) as fault:
        raise GradbenchError(f"dataset {name}: {fault}") from fault


def look(dataset: Dataset, settings: DataSettings) -> list[Held]:
    """Return the splits of a data set that are on this machine, by headers and names alone."""
    found = []
    for split in dataset.every_split():
        if not dataset.here(split, settings):
            continue
        official, count = dataset.counts.get(split, 0), None
        place = dataset.where(split, settings)
        try:
            count, restored = dataset.count(split, settings)
            chosen = bool(dataset.copy_note) and place is not None and place.suffix == ".npz"
            enough = max(official, dataset.least.get(split, 0))
            status = "official" if place is None else UNCOUNTED
            if count is not None:
                status = standing(enough, count, restored or chosen)
            status = dataset.status or status
        except GradbenchError:
            status = "damaged"
        found.append(Held(split, place, count, official, status))
    return found


def listed(settings: DataSettings, dirs: Iterable[Path] = ()) -> list[Entry]:
    """Return every data set that has a file, with what is here of it."""
    return [_entry(name, settings, dirs) for name in group_files("dataset", dirs)]


def _entry(name: str, settings: DataSettings, dirs: Iterable[Path]) -> Entry:
    try:
        dataset = known(name, dirs)
    except GradbenchError as fault:
        return Entry(name, fault=f"needs settings ({fault})")
    reasons = {dataset.ready(role, settings) for role in dataset.roles}
    fault = "set path" if reasons == {"set path"} else ""
    held = tuple(look(dataset, settings))
    return Entry(
        name,
        held,
        tuple(s for s in dataset.every_split() if s not in {h.split for h in held}),
        tuple(dict.fromkeys(urlsplit(a["url"]).hostname or "" for a in dataset.archives)),
        download_size(dataset.archives),
        dataset.terms,
        fault,
    )


def download_size(archives: Iterable[Mapping[str, Any]]) -> int | None:
    """Return the bytes of some archives, None where one does not tell or there is none."""
    sizes = [archive.get("bytes") for archive in archives]
    return sum(sizes) if sizes and None not in sizes else None
