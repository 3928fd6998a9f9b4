"""Networks that others published: found under data.root, checked, with their own normalisation.

A file in `configs/backbone/` describes them under `published`, one for each data set that they were
trained on; `backbone.checkpoint=published` chooses that of the run's data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradbench.errors import GradbenchError, printable
from gradbench.store import file_digest

PUBLISHED = "published"
FOLDER = "networks"
SETTING = f"backbone.checkpoint={PUBLISHED}"


def published_file(entry: Mapping[str, Any], root: str | Path) -> Path | None:
    """Return the first file of a published network that lies under data.root, None without any."""
    paths = (Path(root) / FOLDER / name for name in entry["files"])
    return next((path for path in paths if path.is_file()), None)


def resolve_published(config: Mapping[str, Any], dataset: str, root: str | Path) -> dict[str, Any]:
    """Return a backbone's configuration in which `checkpoint=published` is the path of a file.

    `published` then is the entry of the data set, which also says what the network was trained on
    where `trained_on` does not; with another checkpoint, or none, there is no `published`.

    Raises:
        GradbenchError: if no published network is known for the data set, or its file is missing.
    """
    content = dict(config)
    entries = content.pop(PUBLISHED, None) or {}
    if content.get("checkpoint") != PUBLISHED:
        return content
    if dataset not in entries:
        valid = f"there is one for {', '.join(entries)}" if entries else "there is none"
        raise GradbenchError(
            f"{SETTING}: no published network of {content.get('name')} is known for the data set "
            f"{dataset}: {valid}; `gradbench list backbones` tells all"
        )
    entry = entries[dataset]
    path = published_file(entry, root)
    if path is None:
        raise GradbenchError(
            f"{SETTING}: {printable(Path(root) / FOLDER)} holds no {' or '.join(entry['files'])} "
            f"(of {entry['origin']}, licence: {entry['licence']}): put it there"
        )
    trained_on = content.get("trained_on") or entry["trained_on"]
    return content | {"checkpoint": str(path), "trained_on": trained_on, PUBLISHED: entry}


def check_published(entry: Mapping[str, Any], path: str | Path) -> None:
    """Refuse a file that is not the published one, by its SHA-256."""
    due, actual = entry["files"][Path(path).name], file_digest(Path(path))
    if actual != due:
        raise GradbenchError(
            f"{SETTING}: {printable(path)} is not the published file: its SHA-256 is {actual}, due "
            f"is {due} of {entry['origin']}; name a network of your own with "
            "backbone.checkpoint=FILE"
        )


def describe_origin(config: Mapping[str, Any]) -> str:
    """Return origin, licence, SHA-256 and accuracies of the network that `resolve_published` found.

    Of the SHA-256 the first twelve digits.
    """
    entry = config[PUBLISHED]
    sha = entry["files"][Path(config["checkpoint"]).name][:12]
    words = [f"published at {entry['origin']}, licence: {entry['licence']}, SHA-256 {sha}…"]
    words += [describe_accuracy(entry), entry.get("remark")]
    return "; ".join(filter(None, words))


def describe_accuracy(entry: Mapping[str, Any]) -> str:
    """Return the published and the measured accuracy of a published network in words."""
    pairs = ((word, entry[f"{word}_accuracy"]) for word in (PUBLISHED, "measured"))
    return "accuracy " + ", ".join(
        f"not {word}" if value is None else f"{value:g} % {word}" for word, value in pairs
    )
