"""Brings data sets to this machine when they are asked for by name."""

from __future__ import annotations

from collections.abc import Iterator

from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.shelf import Held, look


def lacking(dataset: Dataset, settings: DataSettings) -> list[str]:
    """Return the splits of a set that are not here and have a known download.

    Raises:
        MissingData: if splits are not here and none of them can be had, with the other ways.
    """
    missing = [split for split in dataset.every_split() if not dataset.here(split, settings)]
    wanted = [split for split in missing if dataset.downloads(split)]
    for split in wanted or missing[:1]:
        dataset.may_fetch(split, settings)
    return wanted


def bring(dataset: Dataset, settings: DataSettings) -> Iterator[str]:
    """Download what is missing of a set, and say of every split where it is.

    A copy as arrays goes before the published files, so a part is not completed by a download:
    its line says so.

    Raises:
        MissingData: if a download is not allowed or fails, with the other ways.
    """
    for held in look(dataset, settings):
        yield f"{dataset.name} {held}: {_already(dataset, held)}"
    wanted = lacking(dataset, settings)
    for split in wanted:
        if not dataset.here(split, settings):  # it may have come with another split
            dataset.fetch(split, settings)
        yield f"{dataset.name} {split}: fetched to {dataset.where(split, settings)}"
    for split in dataset.every_split():
        if split not in wanted and not dataset.here(split, settings):
            yield f"{dataset.name} {split}: not here, no download with a checksum is known"


def _already(dataset: Dataset, held: Held) -> str:
    where = "embedded" if held.place is None else f"here already, at {held.place}"
    if held.status == "part" and dataset.downloads(held.split):
        return f"{where}; move this part away and fetch again to have the whole"
    return where
