"""`gradbench data`: what images there are, how to get them, whether they are whole, their look."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradbench.cli import data_show
from gradbench.cli.arguments import Parser, add_config_dir, data_root, split_words
from gradbench.errors import GradbenchError, unknown
from gradbench.support.progress import step

if TYPE_CHECKING:
    from gradbench.data.dataset import Dataset, DataSettings

ACTIONS = {
    "list": "every data set: what is here, where the rest can be had, its size, its terms",
    "fetch": "download what is missing; goes on where it stopped, compares checksums",
    "verify": "read what is here (without a name: of every set) and check it: counts, form, "
    "labels, repeated images, train against test, published checksums; exit code 1 if something "
    "is damaged",
    "show": "a picture of a set, or of what a challenge makes of it",
}


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    parser.epilog = "Your own images: `gradbench data verify folder dataset.path=DIR`."
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, summary in ACTIONS.items():
        action = actions.add_parser(name, help=summary, description=summary)
        if name == "show":
            data_show.configure(action)
            continue
        action.add_argument("words", nargs="*", metavar="NAME | data.root=DIR | dataset.KEY=value")
        add_config_dir(action)
        function = {"list": _list, "fetch": _fetch, "verify": _verify}[name]
        action.set_defaults(main=function, parser=action)


def main(args: Namespace) -> None:
    """Do nothing: every action has a function of its own."""


def _list(args: Namespace) -> None:
    from gradbench.data.catalogue import list_datasets

    names, changes, settings = _read(args.words)
    if names or changes:
        raise GradbenchError(f"data list takes data.root=DIR alone, not {(names or [*changes])[0]}")
    with step(f"looking for data sets under {settings.root}"):
        entries = list_datasets(settings, args.config_dir)
    off = "" if settings.online else ", downloads are off"
    print(f"data sets, looked for under {settings.root}{off} ({len(entries)})")
    table = [("name", "here", "status", "published at", "size", "terms")]
    table += [(e.name, e.summary, e.status, ", ".join(e.hosts), _size(e.size), e.terms)
              for e in entries]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*table)]
    for row in table:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths)]
        print(f"  {'  '.join(cells)}".rstrip())


def _fetch(args: Namespace) -> None:
    from gradbench.data.catalogue import download_missing, missing_splits

    names, changes, settings = _read(args.words)
    if not names:
        raise GradbenchError("data fetch: name a data set, `gradbench data list` names all")
    datasets = _datasets(names, changes, args.config_dir)
    for dataset in datasets:  # a set that cannot be had is refused before anything is downloaded
        missing_splits(dataset, settings)
    for dataset in datasets:
        for line in download_missing(dataset, settings):
            print(line, flush=True)


def _verify(args: Namespace) -> None:
    from gradbench.data.catalogue import list_datasets, verify

    names, changes, settings = _read(args.words)
    names = names or [e.name for e in list_datasets(settings, args.config_dir) if e.local]
    checks, differ = 0, 0
    for dataset in _datasets(names, changes, args.config_dir):
        print(dataset.name)
        for check in verify(dataset, settings):
            print(f"  {check.split:<11} {check.subject:<9}{check.verdict:<8} {check.detail}")
            checks += 1
            differ += check.verdict == "differs"
    if differ:
        print(f"gradbench: {differ} of {checks} checks found damage", file=sys.stderr)
        sys.exit(1)


def _datasets(names: list[str], changes: dict[str, Any], dirs: list[Path]) -> list[Dataset]:
    from gradbench.data.catalogue import build_dataset

    if changes and len(names) != 1:
        raise GradbenchError("dataset.KEY=value changes one set: name it alone")
    return [build_dataset(name, dirs, changes) for name in names]


def _read(words: Sequence[str]) -> tuple[list[str], dict[str, Any], DataSettings]:
    """Return names, changed settings of the data set, and where data sets are."""
    import yaml

    from gradbench.data.dataset import DataSettings

    changed = [word for word in words if word.startswith("dataset.") and "=" in word]
    pairs = [word.removeprefix("dataset.").split("=", 1) for word in changed]
    keys = ("data.root", "data.download", "dataset.path")
    names, settings, _ = split_words([w for w in words if w not in changed], keys, "data")
    download = settings.get("data.download", "true")
    if download not in ("true", "false"):
        raise unknown("value of data.download", download, ("true", "false"))
    where = DataSettings(data_root(settings.get("data.root")), download == "true")
    return names, {key: yaml.safe_load(value) for key, value in pairs}, where


def _size(count: int | None) -> str:
    if count is None:
        return ""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{max(count / 2**20, 1):.0f} MiB"
