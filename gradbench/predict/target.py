"""Where scores may be written: they replace earlier scores, never a picture or a part of a run."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from gradbench.errors import GradbenchError, printable
from gradbench.support.text import expand_home

START = b"file,class,probability,"
"""How a file of scores begins."""


def target(path: str | Path, pictures: Iterable[Path] = ()) -> Path:
    """Return the path that scores go to.

    A folder with a `run.json` is a run: of its files only earlier scores may be replaced, and its
    `model/` stays as it is. Links are not followed: /dev/stdout is one.

    Args:
        path: of a file that is there, or not yet.
        pictures: that are read meanwhile.

    Raises:
        GradbenchError: if it is a folder, a link, a device, a picture, or belongs to a run.
    """
    path = expand_home(path)
    name = printable(path)
    if os.path.isdir(path):
        raise GradbenchError(f"{name} is a folder: name a file, --out {name}/NAME.csv")
    there = os.path.lexists(path)
    if there and not stat.S_ISREG(os.lstat(path).st_mode):
        raise GradbenchError(
            f"{name} is a link, a device or a pipe: scores go to a file, name one with --out FILE"
        )
    scores = there and _holds_scores(path)
    if there and not scores and any(_same(path, picture) for picture in pictures):
        raise GradbenchError(f"{name} is one of the pictures: name another file with --out FILE")
    whole = Path(os.path.realpath(path.parent), path.name)
    home = next((p for p in whole.parents if os.path.isfile(p / "run.json")), None)
    if home and (home / "model") in whole.parents:
        raise GradbenchError(
            f"{name} lies where a run keeps its networks: name another file with --out FILE"
        )
    if home and there and not scores:
        raise GradbenchError(
            f"{name} is a file of the run in {printable(home)} and holds no scores: name another "
            "file with --out FILE"
        )
    return path


def _holds_scores(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(START)) == START
    except OSError:
        return False


def _same(path: Path, picture: Path) -> bool:
    try:
        return os.path.samefile(path, picture)
    except (OSError, ValueError):  # pictures that are not there are told later
        return False
