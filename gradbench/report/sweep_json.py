"""`sweep.json` of a sweep's folder: its settings, its jobs, and the files that it wrote itself."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from gradbench.errors import GradbenchError, printable
from gradbench.report.claim import refuse_foreign, refuse_other
from gradbench.report.manifest import listed
from gradbench.report.run_json import File
from gradbench.store import file_digest
from gradbench.support.files import Damaged, read_json

NAME = "sweep.json"
MERGED = ("results.csv", "levels.png")
"""What a sweep writes beside the folders of its jobs."""


class Swept(Struct, frozen=True):
    """The content of `sweep.json`."""

    config: dict[str, Any]
    jobs: list[str]
    files: dict[str, File]


def check(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
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
    files: dict[str, Any] = {}
    if os.path.lexists(folder / NAME):
        try:
            told = read_json(folder / NAME, Swept)
        except Damaged as fault:
            raise GradbenchError(
                f"{printable(folder / NAME)} is damaged ({printable(fault)}): name another folder "
                "with out=DIR"
            ) from fault
        refuse_other(folder, "sweep", told["config"], config, seeds=False)
        files = told["files"]
    names = [name for name in MERGED if os.path.lexists(folder / name) and name not in files]
    refuse_foreign(folder, names, NAME)
    return files


def place(folder: Path, part: Path, config: Mapping[str, Any], jobs: Iterable[str]) -> None:
    """Move the merged files of a sweep to its folder, and note them there.

    They are noted before they are moved: a sweep that is killed in between knows them again.

    Args:
        folder: of the sweep.
        part: where they were written.
        config: see `check`.
        jobs: names of the jobs that are finished.

    Raises:
        GradbenchError: see `check`.
    """
    before = check(folder, config)
    names = [name for name in MERGED if (part / name).is_file()]
    told = {"config": config, "jobs": sorted(jobs), "files": listed(part, names)}
    (part / NAME).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    for name in (NAME, *names):
        os.replace(part / name, folder / name)
    for name in set(before) & set(MERGED) - set(names):
        path = folder / name
        if path.is_file() and file_digest(path) == before[name]["sha256"]:
            path.unlink()
