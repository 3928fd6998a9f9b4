"""Finished runs as sources of a table's numbers: found in folders, told apart, read once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradbench.config import group_files, load_member
from gradbench.report.finished_run import RUN_JSON, FinishedRun
from gradbench.run.rows import FILES

if TYPE_CHECKING:
    import pandas

DEEPEST = 4
"""Folders below the one named in which runs are looked for."""
NO_RUNS = ("store", "model", "figures")
"""Folders that hold no runs, and in the case of the store very many files."""
SOURCES = {
    "part": "a part of the set",
    "stand_in": "a stand-in",
    "regenerated": "brought to this shape here instead of taken from the published archive",
    "generated": "generated here instead of taken from the published archive",
}


class Run(FinishedRun):
    """A finished run as a source of numbers; arguments and errors as `FinishedRun`."""

    def __init__(self, path: Path):
        super().__init__(path)
        record = self.record
        self.about: Mapping[str, Any] = record["about"]
        self.config: Mapping[str, Any] = record["config"]
        self.data: Mapping[str, Any] = record["data"]
        self.begun: str = record["time"]["begun"]
        self.commit: str = record["code"].get("commit") or record["code"]["version"]
        weights = {seed: one["weights"] for seed, one in record["networks"].items()}
        self.name, self.in_dist = self.about["experiment"], self.about["in_dist"]
        self.backbone, self.protocol = self.about["backbone"], self.about["protocol"]
        seeds = (self.config["evaluation"]["seed"], self.config["challenge"])
        same = (weights, self.protocol, self.config.get("limit"), seeds)
        self.comparable = json.dumps(same, sort_keys=True)
        """Equal for runs whose numbers may stand in one table: network, images, protocol."""

    @cached_property
    def main_rows(self) -> pandas.DataFrame:
        """Rows of the run's main table: every detector on every challenge, over all folds."""
        rows = self.frame
        return rows[(rows["role"] == "main") & rows["fold"].isin(["all", ""])]

    def narrower(self, dirs: Iterable[Path] = ()) -> str:
        """Return how a network is smaller than its backbone's file says, "" if it is not."""
        if self.backbone not in group_files("backbone", dirs):
            return ""
        own = self.config["backbone"]
        return ", ".join(
            f"{key} {own[key]} instead of {value}"
            for key, value in load_member("backbone", self.backbone, dirs).items()
            if type(value) is int and key != "narrower" and own.get(key, value) != value
        )

    def image_notes(self) -> list[str]:
        """Return what is to be known of the clean images of the run."""
        found = []
        if self.config.get("limit"):
            count = self.about["n_clean"]
            found.append(f"{count} clean test images of {self.in_dist}, not all of them")
        for split, role in (("train", "trained on"), (f"{self.in_dist} test", "clean images:")):
            status = self.data.get(split, {}).get("status")
            if status in SOURCES:
                found.append(f"{role} {SOURCES[status]} {self.in_dist}")
        return found


def is_run(folder: Path) -> bool:
    """Tell whether a folder holds the files of a finished run."""
    return not missing_files(folder)


def missing_files(folder: Path) -> list[str]:
    """Return which of a finished run's two essential files a folder lacks: rows, run.json."""
    rows = any(os.path.isfile(Path(folder) / name) for name in FILES)
    told = os.path.isfile(Path(folder) / RUN_JSON)
    return [name for name, there in ((FILES[0], rows), (RUN_JSON, told)) if not there]


def jobs(folder: Path) -> list[Path]:
    """Return the folders of the runs of a sweep by its folder, none where it is no sweep's."""
    if missing_files(folder) != [RUN_JSON]:
        return []
    return sorted(path for path in folder.iterdir() if is_run(path))


def find_runs(folders: Iterable[Path]) -> list[Run]:
    """Return the finished runs in folders and below, the newest first, then by path.

    Raises:
        GradbenchError: if a run.json is damaged.
    """
    paths: dict[Path, Path] = {}
    for folder in folders:
        for place, inside, files in os.walk(folder):
            if RUN_JSON in files and not set(FILES).isdisjoint(files):
                paths.setdefault(Path(place).resolve(), Path(place))
                inside.clear()
            deep = len(Path(place).relative_to(folder).parts) >= DEEPEST
            inside[:] = [n for n in sorted(inside) if n not in NO_RUNS and n[0] != "." and not deep]
    runs = sorted((Run(path) for path in paths.values()), key=lambda run: str(run.path))
    return sorted(runs, key=lambda run: begin_time(run.begun), reverse=True)


def begin_time(begun: str) -> float:
    """Return when a run began in seconds, 0 where that cannot be told."""
    try:
        return datetime.fromisoformat(begun).timestamp()
    except (ValueError, OverflowError):
        return 0.0
