"""Whose files a folder holds: runs and sweeps replace their own, and refuse to replace others."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from gradbench.errors import GradbenchError, printable
from gradbench.report.finished_run import (
    PARTIAL,
    RUN_JSON,
    Files,
    ListedFile,
    list_files,
    present_files,
    read_record,
)
from gradbench.store import canonical_json, file_digest
from gradbench.support.files import Damaged, read_json
from gradbench.support.locks import file_lock

LOCK = ".gradbench-lock"
SWEEP_JSON = "sweep.json"
MERGED = ("results.csv", "levels.png")
"""What a sweep writes beside the folders of its jobs."""
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
Config = Mapping[str, Any]


def check_claim(folder: Path, config: Config, names: Iterable[str] = ()) -> list[str]:
    """Refuse a folder in which a run would replace what is not its own.

    A run of the same configuration is replaced. That is one with the same settings, but for where
    and on what it is made (`ANYWHERE`), which challenges, levels, detectors and controls it asks
    for, and seeds that are added: so one more detector goes to the same folder.

    Args:
        folder: that the run will write to; it need not be there.
        config: of the run.
        names: files that it will write, where they are known, beside `present_files`.

    Returns:
        What the run that is there measured and this one will not, in words.

    Raises:
        GradbenchError: naming both runs and what differs, or the files that no run wrote.
    """
    lost: list[str] = []
    known: set[str] | None = set()
    for place in (folder, folder / PARTIAL):
        if not os.path.lexists(place / RUN_JSON):
            continue
        record = read_record(place)
        _refuse_other(folder, "run", record["config"], config, SEEDS)
        lost = _lost(record["config"], config, LISTS)
        if record.get("files") is None:
            known = None  # an older version listed no files: all that runs write counts as its own
        elif known is not None:
            known |= set(record["files"])
    there = {*present_files(folder), *(name for name in names if os.path.lexists(folder / name))}
    foreign = [] if known is None else sorted(there - known)
    blocked = [n for n in ("figures", "model") if not (folder / n).is_dir()]
    foreign += [name for name in blocked if os.path.lexists(folder / name)]
    _refuse_foreign(folder, foreign, RUN_JSON)
    return lost


def unclaimed_folder(folder: Path, config: Config) -> Path:
    """Return the first of FOLDER, FOLDER-2, ... that a run may write to."""
    place, number = folder, 1
    while True:
        try:
            check_claim(place, config)
            return place
        except GradbenchError:
            number += 1
            place = _numbered(folder, number)


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


def move_into_place(folder: Path) -> None:
    """Move all that a run wrote beside its place, and remove its own files that it wrote no more.

    Killed on the way, it is carried on by the next call: `PARTIAL` holds what is not moved yet.

    Raises:
        OSError: if the folder cannot be written.
    """
    part = folder / PARTIAL
    new, before = _listed(part), _listed(folder)
    for name in new:
        if (part / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(part / name, folder / name)
    old = [name for name in present_files(folder) if name in before and name not in new]
    _remove_own(folder, {name: before[name] for name in old})
    for inside in part.iterdir():
        if inside.is_dir():  # where nothing was drawn there is an empty one
            (folder / inside.name).mkdir(exist_ok=True)
    os.replace(part / RUN_JSON, folder / RUN_JSON)
    shutil.rmtree(part, ignore_errors=True)


class _Sweep(Struct, frozen=True):
    config: dict[str, Any]
    jobs: list[str]
    files: dict[str, ListedFile]


def check_sweep_claim(folder: Path, config: Config) -> Files:
    """Refuse a folder in which a sweep would replace what is not its own, as a run does.

    Challenges, levels, detectors and seeds may differ: jobs have folders of their own.

    Args:
        folder: that the sweep will write to; it need not be there.
        config: what is the same in all jobs.

    Returns:
        The files that a former call of the sweep wrote.

    Raises:
        GradbenchError: naming what differs, or the files that no sweep wrote.
    """
    files: Files = {}
    path = folder / SWEEP_JSON
    if os.path.lexists(path):
        try:
            sweep = read_json(path, _Sweep)
        except Damaged as fault:
            raise GradbenchError(
                f"{printable(path)} is damaged ({printable(fault)}): name another folder with "
                "out=DIR"
            ) from fault
        _refuse_other(folder, "sweep", sweep["config"], config, {})
        files = sweep["files"]
    names = [name for name in MERGED if os.path.lexists(folder / name) and name not in files]
    _refuse_foreign(folder, names, SWEEP_JSON)
    return files


def move_sweep_into_place(folder: Path, part: Path, config: Config, jobs: Iterable[str]) -> None:
    """Move the merged files of a sweep to its folder, and list them in its `sweep.json`.

    They are listed before they are moved: a sweep that is killed in between knows them again.

    Args:
        folder: of the sweep.
        part: where they were written.
        config: see `check_sweep_claim`.
        jobs: names of the jobs that are finished.

    Raises:
        GradbenchError: see `check_sweep_claim`.
    """
    before = check_sweep_claim(folder, config)
    names = [name for name in MERGED if (part / name).is_file()]
    sweep = {"config": config, "jobs": sorted(jobs), "files": list_files(part, names)}
    (part / SWEEP_JSON).write_text(json.dumps(sweep, indent=1) + "\n", encoding="utf-8")
    for name in (SWEEP_JSON, *names):
        os.replace(part / name, folder / name)
    _remove_own(folder, {name: before[name] for name in set(before) & set(MERGED) - set(names)})


def _listed(folder: Path) -> Files:
    """Return the files that a folder's run.json lists."""
    return (read_record(folder).get("files") or {}) if (folder / RUN_JSON).is_file() else {}


def _remove_own(folder: Path, files: Files) -> None:
    """Remove files that are still as they were written, and folders that are empty then."""
    for name, listed in files.items():
        path = folder / name
        if path.is_file() and file_digest(path) == listed["sha256"]:
            path.unlink()
            for parent in path.relative_to(folder).parents[:-1]:
                with contextlib.suppress(OSError):
                    (folder / parent).rmdir()


def _refuse_other(folder: Path, what: str, before: Config, now: Config, seeds: Mapping) -> None:
    """Refuse the folder of another configuration, naming both and what differs.

    A setting that one of them lacks was not there in another version, but for those of the
    network, the images and the protocol, which a user may add.
    """
    old, new = (json.loads(json.dumps(config)) for config in (before, now))
    found = [f"{lost} there and not here" for lost in _lost(old, new, seeds)]
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
    if found:
        theirs, ours = (printable(str(config.get("name", "?"))) for config in (before, now))
        raise GradbenchError(
            f"{printable(folder)} holds the {what} {theirs}, and this {what}, {ours}, is another "
            f"one ({_some(found)}): name another folder, for example "
            f"out={printable(_unused(folder))}"
        )


def _refuse_foreign(folder: Path, names: list[str], mark: str) -> None:
    """Refuse a folder for files in it that would be replaced though no run wrote them."""
    if names:
        raise GradbenchError(
            f"{printable(folder)} holds {_some(names)}, of which no {mark} of gradbench speaks: "
            f"move {'it' if len(names) == 1 else 'them'} away, or name another folder, for example "
            f"out={printable(_unused(folder))}"
        )


def _lost(old: Config, new: Config, lists: Mapping[str, str]) -> list[str]:
    """Return what the lists of a former configuration ask for and those of a new one do not."""
    found = []
    for name, alone in lists.items():
        now = _entries(new, name, alone)
        lost = [] if "all" in now else [n for n in _entries(old, name, alone) if n not in now]
        found += [f"{name} {_some(lost)}"] if lost else []
    return found


def _entries(config: Config, name: str, alone: str) -> list[str]:
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
