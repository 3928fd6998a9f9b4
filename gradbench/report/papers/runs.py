"""Finished runs as sources of cells: found in folders, told apart, read once."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cached_property
from math import isnan
from pathlib import Path
from typing import Any

from gradbench.report.finished import Finished
from gradbench.report.manifest import COUNTED
from gradbench.report.run_json import NAME
from gradbench.run.rows import NO_LEVEL

NEEDED = (COUNTED, NAME)
"""Files without which a folder holds no finished run."""
DEEPEST = 4
"""Folders below the one named in which runs are looked for."""
NO_RUNS = ("store", "model", "figures")
"""Folders that hold no runs, and in the case of the store very many files."""
KINDS = ("ood", "corruption", "adversarial")


class Run(Finished):
    """The folder of a finished run as a source of cells; arguments and faults as `Finished`."""

    def __init__(self, path: Path):
        super().__init__(path)
        told = self.told
        self.about: Mapping[str, Any] = told["about"]
        self.config: Mapping[str, Any] = told["config"]
        self.data: Mapping[str, Any] = told["data"]
        self.begun: str = told["time"]["begun"]
        self.commit: str = told["code"].get("commit") or told["code"]["version"]
        weights = {seed: one["weights"] for seed, one in told["networks"].items()}
        self.name, self.in_dist = self.about["experiment"], self.about["in_dist"]
        self.backbone, self.protocol = self.about["backbone"], self.about["protocol"]
        seeds = (self.config["evaluation"]["seed"], self.config["challenge"])
        footing = (weights, self.protocol, self.config.get("limit"), seeds)
        self.footing = json.dumps(footing, sort_keys=True)
        """Equal for runs whose numbers may stand in one table: network, images, protocol."""

    def value(self, *keys: Any) -> list[Any]:
        """Return the rows of (challenge, level, method, metric, side, rule), one for each seed.

        The level is "" where there are none.
        """
        return [row for row in self._rows.get(keys, ()) if not isnan(row.value)]

    def reason(self, challenge: str, level: str, method: str) -> str:
        """Return why the run did not measure a detector on a challenge, "" where it does not say.

        A hole without level or method speaks of all of them.
        """
        for row in self._holes.get(challenge, ()):
            if row.level in (NO_LEVEL, level) and row.method in ("", method):
                return row.note.removeprefix("not measured: ")
        return ""

    def alike(self, challenge: str, level: str, method: str, best: str) -> bool:
        """Tell whether the paired test of a run cannot tell a detector's AUROC from the best one.

        Read from the rows of `auroc_difference`, which name the best of the run; where that is a
        detector which the table does not hold, there is no test.
        """
        rows = self.value(challenge, level, method, "auroc_difference", "", "")
        return any(row.compared_with == best and row.lo <= 0 <= row.hi for row in rows)

    def remarks(self, row: Any) -> list[str]:
        """Return what the note of a row tells of the images."""
        own = ("exact", "not measured: ", "no interval", "indicative")
        return [part for part in row.note.split("; ") if part and not part.startswith(own)]

    @cached_property
    def _rows(self) -> dict[tuple, list[Any]]:
        found: dict[tuple, list[Any]] = defaultdict(list)
        rows = self.frame
        rows = rows[(rows["fold"] == "all") & rows["challenge_set"].isin(KINDS)]
        for row in rows[rows["protocol"] == self.protocol].itertuples(index=False):
            level = "" if row.level == NO_LEVEL else row.level
            key = (row.challenge, level, row.method, row.metric, row.side, row.threshold_rule)
            found[key].append(row)
        return found

    @cached_property
    def _holes(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = defaultdict(list)
        rows = self.frame
        rows = rows[rows["challenge_set"].isin(KINDS) & rows["note"].str.contains("not measured: ")]
        for row in rows.itertuples(index=False):
            found[row.challenge].append(row)
        return found


def is_run(folder: Path) -> bool:
    """Tell whether a folder holds the files of a finished run."""
    return all(os.path.isfile(folder / name) for name in NEEDED)


def jobs(folder: Path) -> list[Path]:
    """Return the folders of the runs of a sweep by its folder, none where it is no sweep's."""
    if os.path.isfile(folder / NAME) or not os.path.isfile(folder / COUNTED):
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
            if set(NEEDED) <= set(files):
                paths.setdefault(Path(place).resolve(), Path(place))
                inside.clear()
            deep = len(Path(place).relative_to(folder).parts) >= DEEPEST
            inside[:] = [n for n in sorted(inside) if n not in NO_RUNS and n[0] != "." and not deep]
    runs = sorted((Run(path) for path in paths.values()), key=lambda run: str(run.path))
    return sorted(runs, key=lambda run: moment(run.begun), reverse=True)


def moment(begun: str) -> float:
    """Return when a run began in seconds, 0 where that cannot be told."""
    try:
        return datetime.fromisoformat(begun).timestamp()
    except (ValueError, OverflowError):
        return 0.0
