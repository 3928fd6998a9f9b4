"""Whose files a folder holds: runs and sweeps replace their own, and refuse to replace others."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
"""The files of a sweep beside the folders of its jobs."""
ANYWHERE = ("out", "store", "device", "devices", "data", "launcher", "controls")
"""Settings that may differ between calls of one run: where and on what it is made, and controls."""
WORDS = ("description", "remark", "terms", "published")
"""Fields that are words for a reader, in whatever section, and the catalogue of networks."""
LISTS = {"challenges": "", "detectors": "", "levels": "level", "seeds": "seed"}
"""Settings of which a later call of a run may ask for more, of all but seeds also for less."""
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
"""Faults of file systems that have no locks."""
Config = Mapping[str, Any]


def check_claim(folder: Path, config: Config, names: Iterable[str] = ()) -> list[str]:
    """Refuse a folder in which a run would replace what is not its own.

    A run of the same configuration is replaced: one with the same settings but for those of
    `ANYWHERE`, other challenges, levels and detectors, and more seeds. `names` are the files that
    the run will write beside `present_files`, where they are known.

    Returns:
        What the run that is there measured and this one will not, in words.

    Raises:
        GradbenchError: naming both runs and what differs, or the files that no run wrote.
    """
    dropped: list[str] = []
    own: set[str] = set()
    for place in (folder, folder / PARTIAL):
        if os.path.lexists(place / RUN_JSON):
            record = read_record(place)
            _refuse_other(folder, "run", record["config"], config)
            dropped = _dropped(record["config"], config, ("challenges", "detectors", "levels"))
            own |= set(record["files"])
    there = {*present_files(folder), *(name for name in names if os.path.lexists(folder / name))}
    blocked = {n for n in ("figures", "model") if os.path.lexists(folder / n)}
    there |= {name for name in blocked if not (folder / name).is_dir()}
    _refuse_foreign(folder, sorted(there - own), RUN_JSON)
    return dropped


def unclaimed_folder(folder: Path, config: Config) -> Path:
    """Return the first of FOLDER, FOLDER-2, ... that a run may write to."""
    number = 1
    while True:
        place = folder if number == 1 else _numbered(folder, number)
        try:
            check_claim(place, config)
            return place
        except GradbenchError:
            number += 1


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
            if fault.errno not in NO_LOCKS:
                raise
        yield


def move_into_place(folder: Path) -> None:
    """Move all that a run wrote beside its place, and remove its own files that it wrote no more.

    Killed on the way, it is carried on by the next call: `PARTIAL` holds what is not moved yet, and
    its run.json, moved last, says that it is whole.

    Raises:
        OSError: if the folder cannot be written.
    """
    part = folder / PARTIAL
    new = read_record(part)["files"]
    before = read_record(folder)["files"] if (folder / RUN_JSON).is_file() else {}
    for name in new:
        if (part / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(part / name, folder / name)
    _remove_own(folder, {name: before[name] for name in before if name not in new})
    (folder / "figures").mkdir(exist_ok=True)
    os.replace(part / RUN_JSON, folder / RUN_JSON)
    shutil.rmtree(part, ignore_errors=True)


class _Sweep(Struct, frozen=True):
    config: dict[str, Any]
    jobs: list[str]
    files: dict[str, ListedFile]


def check_sweep_claim(folder: Path, config: Config) -> Files:
    """Refuse a folder in which a sweep would replace what is not its own, as a run does.

    Challenges, levels, detectors and seeds may differ: jobs have folders of their own. `config` is
    what is the same in all of them.

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
        _refuse_other(folder, "sweep", sweep["config"], config)
        files = sweep["files"]
    foreign = [name for name in MERGED if os.path.lexists(folder / name) and name not in files]
    _refuse_foreign(folder, foreign, SWEEP_JSON)
    return files


def move_sweep_into_place(folder: Path, part: Path, config: Config, jobs: Iterable[str]) -> None:
    """Move the merged files of a sweep from `part` to its folder, and list them in `sweep.json`.

    They are listed before they are moved: a sweep that is killed in between knows them again.
    `config` and errors are those of `check_sweep_claim`, `jobs` the names of the finished ones.
    """
    before = check_sweep_claim(folder, config)
    names = [name for name in MERGED if (part / name).is_file()]
    sweep = {"config": config, "jobs": sorted(jobs), "files": list_files(part, names)}
    (part / SWEEP_JSON).write_text(json.dumps(sweep, indent=1) + "\n", encoding="utf-8")
    for name in (SWEEP_JSON, *names):
        os.replace(part / name, folder / name)
    _remove_own(folder, {name: before[name] for name in before if name not in names})


def _remove_own(folder: Path, files: Files) -> None:
    """Remove files that are still as they were written, and folders that are empty then."""
    for name, listed in files.items():
        path = folder / name
        if path.is_file() and file_digest(path) == listed["sha256"]:
            path.unlink()
            for parent in path.relative_to(folder).parents[:-1]:
                with contextlib.suppress(OSError):
                    (folder / parent).rmdir()


def _refuse_other(folder: Path, kind: str, before: Config, now: Config) -> None:
    """Refuse the folder of a run or sweep of another configuration, naming what differs.

    A setting that one of them lacks was not there in another version, but for those of the
    network, the images and the protocol, which a user may add.
    """
    old, new = (json.loads(json.dumps(config)) for config in (before, now))
    differences = [
        f"{seeds} there and not here"
        for seeds in (_dropped(old, new, ["seeds"]) if kind == "run" else [])
    ]
    free = {*ANYWHERE, *LISTS, *LISTS.values()}
    one, other = (dict(_settings(config)) for config in (old, new))
    for key in sorted({*one, *other}):
        section = key.partition(".")[0]
        known = key in one and key in other
        if section in free or not (known or section in ("backbone", "dataset", "protocol")):
            continue
        if one.get(key) != other.get(key):
            values = (canonical_json(side.get(key)).strip('"') for side in (one, other))
            short = [printable(v if len(v) <= 60 else f"{v[:57]}...") for v in values]
            differences.append(f"{key}={short[0]} there and {short[1]} here")
    if differences:
        theirs, ours = (printable(str(config.get("name", "?"))) for config in (before, now))
        raise GradbenchError(
            f"{printable(folder)} holds the {kind} {theirs}, and this {kind}, {ours}, is another "
            f"one ({_some(differences)}): {_elsewhere(folder)}"
        )


def _refuse_foreign(folder: Path, names: Sequence[str], record: str) -> None:
    """Refuse a folder for files in it that would be replaced though no run wrote them."""
    if names:
        raise GradbenchError(
            f"{printable(folder)} holds {_some(names)}, of which no {record} of gradbench speaks: "
            f"move {'it' if len(names) == 1 else 'them'} away, or {_elsewhere(folder)}"
        )


def _dropped(old: Config, new: Config, lists: Iterable[str]) -> list[str]:
    """Return what the lists of a former configuration ask for and those of a new one do not."""
    dropped = []
    for name in lists:
        before, now = (_entries(config, name) for config in (old, new))
        missing = [entry for entry in before if entry not in now and "all" not in now]
        dropped += [f"{name} {_some(missing)}"] if missing else []
    return dropped


def _entries(config: Config, name: str) -> list[str]:
    """Return the entries of a list in a configuration as text; levels that are not named: all."""
    value = config.get(name)
    value = config.get(LISTS[name]) if value is None else value
    if value is None:
        return ["all"] if name == "levels" else []
    entries = value if isinstance(value, list) else [value]
    return [canonical_json(entry).strip('"') for entry in entries]


def _settings(config: Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings of a configuration by their dotted names."""
    for name, value in config.items():
        if name in WORDS:
            continue
        if isinstance(value, dict) and value:
            yield from _settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(printable, names[:3])) + more


def _elsewhere(folder: Path) -> str:
    number = 2
    while os.path.lexists(_numbered(folder, number)):
        number += 1
    return f"name another folder, for example out={printable(_numbered(folder, number))}"


def _numbered(folder: Path, number: int) -> Path:
    """Return a folder beside one, for names such as `.` and `..` too."""
    if folder.name in ("", ".."):
        folder = Path(os.path.abspath(folder))
    return folder.parent / f"{folder.name or 'run'}-{number}"
