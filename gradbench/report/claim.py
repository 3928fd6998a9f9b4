"""Whose files a folder holds: a run replaces its own, and leaves alone or refuses all others."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gradbench.errors import GradbenchError, printable
from gradbench.report.finished import PART
from gradbench.report.manifest import Files, written
from gradbench.report.run_json import NAME, read_told
from gradbench.store import canonical_json, file_digest
from gradbench.support.locks import file_lock

LOCK = ".gradbench-lock"
ANYWHERE = ("out", "store", "device", "devices", "data", "launcher")
"""Settings that say where and on what a run is made: they may differ between calls of one run."""
WORDS = ("description", "remark", "terms")
"""Fields that are words for a reader, in whatever section."""
LISTS = {"challenges": "", "detectors": "", "levels": "level"}
"""What calls of one run may ask for more or less of, and the setting of one alone."""
SEEDS = {"seeds": "seed"}
"""What a later call of a run may ask for more of: the networks that are there are kept."""
NOT_LOCKED = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
"""Faults of file systems that have no locks."""
NAMED = 3
"""So many differences or files are named."""


def check(folder: Path, config: Mapping[str, Any], names: Iterable[str] = ()) -> list[str]:
    """Refuse a folder in which a run would replace what is not its own.

    A run of the same configuration is replaced. That is one with the same settings, but for where
    and on what it is made (`ANYWHERE`), which challenges, levels, detectors and controls it asks
    for, and seeds that are added: so one more detector goes to the same folder.

    Args:
        folder: that the run will write to; it need not be there.
        config: of the run.
        names: files that it will write, where they are known, beside those of `written`.

    Returns:
        What the run that is there measured and this one will not, in words.

    Raises:
        GradbenchError: naming both runs and what differs, or the files that no run wrote.
    """
    dropped: list[str] = []
    known: set[str] | None = set()
    for place in (folder, folder / PART):
        if not os.path.lexists(place / NAME):
            continue
        told = read_told(place)
        refuse_other(folder, "run", told["config"], config)
        dropped = _lost(told["config"], config, LISTS)
        if told.get("files") is None:
            known = None  # an older version listed no files: all that runs write counts as its own
        elif known is not None:
            known |= set(told["files"])
    there = {*written(folder), *(name for name in names if os.path.lexists(folder / name))}
    theirs = [] if known is None else sorted(there - known)
    blocked = [n for n in ("figures", "model") if not (folder / n).is_dir()]
    theirs += [name for name in blocked if os.path.lexists(folder / name)]
    refuse_foreign(folder, theirs, NAME)
    return dropped


def refuse_other(
    folder: Path, what: str, before: Mapping[str, Any], now: Mapping[str, Any], seeds: bool = True
) -> None:
    """Refuse the folder of another configuration, naming both; arguments as `differences`."""
    differ = differences(before, now, seeds)
    if differ:
        theirs, ours = (printable(str(config.get("name", "?"))) for config in (before, now))
        raise GradbenchError(
            f"{printable(folder)} holds the {what} {theirs}, and this {what}, {ours}, is another "
            f"one ({_some(differ)}): name another folder, for example "
            f"out={printable(_unused(folder))}"
        )


def refuse_foreign(folder: Path, names: list[str], mark: str) -> None:
    """Refuse a folder for files in it that would be replaced though no run wrote them."""
    if names:
        raise GradbenchError(
            f"{printable(folder)} holds {_some(names)}, of which no {mark} of gradbench speaks: "
            f"move {'it' if len(names) == 1 else 'them'} away, or name another folder, for example "
            f"out={printable(_unused(folder))}"
        )


def free(folder: Path, config: Mapping[str, Any]) -> Path:
    """Return the first of FOLDER, FOLDER-2, ... that a run may write to."""
    place, number = folder, 1
    while True:
        try:
            check(place, config)
            return place
        except GradbenchError:
            number += 1
            place = _numbered(folder, number)


def differences(before: Mapping[str, Any], now: Mapping[str, Any], seeds: bool = True) -> list[str]:
    """Return in which settings a run is another one than a former one, in words.

    A setting that one of them lacks was not there in another version, but for those of the
    network, the images and the protocol, which a user may add.

    Args:
        before: configuration of the former run.
        now: of this one.
        seeds: whether the networks of the former one must be asked for again.
    """
    old, new = (json.loads(json.dumps(config)) for config in (before, now))
    found = [f"{what} there and not here" for what in _lost(old, new, SEEDS)] if seeds else []
    left = {*ANYWHERE, "controls", *LISTS, *LISTS.values(), *SEEDS, *SEEDS.values()}
    one, other = (
        dict(_flat({k: v for k, v in config.items() if k not in left})) for config in (old, new)
    )
    for key in sorted({*one, *other}):
        lacks = key not in one or key not in other
        if lacks and key.partition(".")[0] not in ("backbone", "dataset", "protocol"):
            continue
        if one.get(key) != other.get(key):
            found.append(f"{key}={_short(one.get(key))} there and {_short(other.get(key))} here")
    return found


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for the block, so that one run at a time writes there; others wait.

    Raises:
        OSError: if the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(file_lock(folder / LOCK, f"writes its results to {folder}"))
        except OSError as fault:
            if fault.errno not in NOT_LOCKED:
                raise
        yield


def place(folder: Path) -> None:
    """Move all that a run wrote beside its place, and remove its own files that it drew no more.

    Killed on the way, it is carried on by the next call: `PART` holds what is not moved yet.

    Raises:
        OSError: if the folder cannot be written.
    """
    part = folder / PART
    new = _files(part)
    for name in new:
        if (part / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(part / name, folder / name)
    before = _files(folder) or {}
    for name in written(folder):
        if name in before and name not in new:
            path = folder / name
            if path.is_file() and file_digest(path) == before[name]["sha256"]:
                path.unlink()
                _remove_empty(path.parent, folder)
    for inside in part.iterdir():
        if inside.is_dir():  # where nothing was drawn there is an empty one
            (folder / inside.name).mkdir(exist_ok=True)
    os.replace(part / NAME, folder / NAME)
    shutil.rmtree(part, ignore_errors=True)


def _files(folder: Path) -> Files:
    """Return the files that a folder's run.json lists."""
    return (read_told(folder).get("files") or {}) if (folder / NAME).is_file() else {}


def _remove_empty(folder: Path, root: Path) -> None:
    with contextlib.suppress(OSError):
        while folder != root:
            folder.rmdir()
            folder = folder.parent


def _lost(old: Mapping[str, Any], new: Mapping[str, Any], lists: Mapping[str, str]) -> list[str]:
    """Return what the lists of a former configuration ask for and those of a new one do not."""
    found = []
    for name, alone in lists.items():
        asked = _entries(new, name, alone)
        lost = [] if "all" in asked else [n for n in _entries(old, name, alone) if n not in asked]
        if lost:
            found.append(f"{name} {_some(lost)}")
    return found


def _entries(config: Mapping[str, Any], name: str, alone: str) -> list[str]:
    """Return the entries of a list in a configuration as text, `all` where it names none."""
    value = config.get(name)
    if alone and value is None:
        value = config.get(alone)
    if value is None:
        return ["all"] if name == "levels" else []
    return [
        canonical_json(one).strip('"') for one in (value if isinstance(value, list) else [value])
    ]


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings of a configuration by their dotted names."""
    if isinstance(value, dict) and (value or not key):
        for name, inner in value.items():
            if name not in WORDS:
                yield from _flat(inner, f"{key}.{name}" if key else name)
    else:
        yield key, value


def _short(value: Any) -> str:
    text = canonical_json(value).strip('"')
    return printable(text if len(text) <= 60 else f"{text[:57]}...")


def _some(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(map(printable, names[:NAMED])) + (f" and {more} more" if more > 0 else "")


def _unused(folder: Path) -> Path:
    number = 2
    while os.path.lexists(_numbered(folder, number)):
        number += 1
    return _numbered(folder, number)


def _numbered(folder: Path, number: int) -> Path:
    """Return a folder beside one, for names such as `.` and `..` too."""
    if folder.name in ("", ".."):
        folder = Path(os.path.abspath(folder))
    return folder.parent / f"{folder.name or 'run'}-{number}"
