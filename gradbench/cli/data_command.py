"""`gradbench data`: what images there are, how to get them, whether they are whole, their look."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gradbench.cli.words import config_dirs, data_root
from gradbench.errors import GradbenchError, unknown
from gradbench.support.progress import step

if TYPE_CHECKING:
    from gradbench.data.settings import DataSettings

ACTIONS = ("list", "fetch", "verify", "show")

HELP = """\
gradbench data list|fetch|verify|show [NAME ...] [data.root=DIR] [--config-dir DIR]

  list             every data set: what is here, where the rest can be had, its size, its terms
  fetch NAME ...   download what is missing; goes on where it stopped, compares checksums
  verify NAME ...  read what is here (without a name: of every set) and check it: counts, form,
                   labels, repeated images, train against test, published checksums; exit code 1
                   if something is damaged
  show NAME        a picture of a set, or of what a challenge makes of it: `data show --help`

Your own images: `gradbench data verify folder dataset.path=DIR`.
"""


def main(words: list[str]) -> None:
    """Run the command."""
    if not words or words[0] in ("-h", "--help"):
        print(HELP)
        return
    action, *rest = words
    if action not in ACTIONS:
        raise unknown("action of data", action, ACTIONS)
    if action == "show":
        from gradbench.cli.data_show import main as show

        show(rest)
        return
    if any(word in ("-h", "--help") for word in rest):
        print(HELP)
        return
    {"list": _list, "fetch": _fetch, "verify": _verify}[action](rest)


def _list(words: list[str]) -> None:
    from gradbench.data.catalogue import list_datasets

    names, changes, settings = _read(words)
    if names or changes:
        raise GradbenchError(f"data list takes data.root=DIR alone, not {(names or [*changes])[0]}")
    with step(f"looking for data sets under {settings.root}"):
        entries = list_datasets(settings, config_dirs(words))
    off = "" if settings.online else ", downloads are off"
    print(f"data sets, looked for under {settings.root}{off} ({len(entries)})")
    rows = [("name", "here", "status", "published at", "size", "terms")]
    for entry in entries:
        hosts = ", ".join(entry.hosts)
        rows.append((entry.name, entry.summary, entry.status, hosts, size(entry.size), entry.terms))
    for line in aligned(rows):
        print(f"  {line}")


def _fetch(words: list[str]) -> None:
    from gradbench.data.catalogue import download_missing, missing_splits

    names, changes, settings = _read(words)
    if not names:
        raise GradbenchError("data fetch: name a data set, `gradbench data list` tells all")
    datasets = _datasets(names, changes, config_dirs(words))
    for dataset in datasets:
        missing_splits(
            dataset, settings
        )  # what cannot be had is told before anything is downloaded
    for dataset in datasets:
        for line in download_missing(dataset, settings):
            print(line, flush=True)


def _verify(words: list[str]) -> None:
    from gradbench.data.catalogue import list_datasets
    from gradbench.data.verify import verify

    names, changes, settings = _read(words)
    dirs = config_dirs(words)
    names = names or [entry.name for entry in list_datasets(settings, dirs) if entry.local]
    checks, differ = 0, 0
    for dataset in _datasets(names, changes, dirs):
        print(dataset.name)
        for check in verify(dataset, settings):
            print(f"  {check.split:<11} {check.subject:<9}{check.verdict:<8} {check.detail}")
            checks += 1
            differ += check.verdict == "differs"
    if differ:
        print(f"gradbench: {differ} of {checks} checks found damage", file=sys.stderr)
        sys.exit(1)


def _datasets(names: list[str], changes: dict, dirs: list[Path]) -> list:
    from gradbench.data.catalogue import build_dataset

    if changes and len(names) != 1:
        raise GradbenchError("dataset.KEY=value changes one set: name it alone")
    return [build_dataset(name, dirs, changes) for name in names]


def _read(words: list[str]) -> tuple[list[str], dict, DataSettings]:
    """Return names, settings of the data set, and where data sets are."""
    import yaml

    from gradbench.data.settings import DataSettings

    names, changes, download = [], {}, True
    values = {str(folder) for folder in config_dirs(words)}
    for word in words:
        key, is_setting, value = word.partition("=")
        if word.startswith("-"):
            if key not in ("--config-dir", "-cd"):
                raise unknown("option", word, ("--config-dir", "--help"))
        elif key.startswith("dataset.") and is_setting:
            changes[key.removeprefix("dataset.")] = yaml.safe_load(value)
        elif key == "data.download" and value in ("true", "false"):
            download = value == "true"
        elif is_setting and key != "data.root":
            choices = ("data.root", "data.download", "dataset.path")
            raise unknown("setting of data", key, choices)
        elif not is_setting and word not in values:
            names.append(word)
    return names, changes, DataSettings(data_root(words), download)


def size(count: int | None) -> str:
    """Return a number of bytes in words.

    >>> size(170498071), size(None)
    ('163 MiB', '')
    """
    if count is None:
        return ""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{max(count / 2**20, 1):.0f} MiB"


def aligned(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Return the rows of a table as lines with columns below each other."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip()
