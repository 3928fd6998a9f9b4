"""The holes of the papers' tables, their reasons, and the runs that would fill them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from gradbench.config import compose, group_files, load_member
from gradbench.data.dataset import DataSettings
from gradbench.data.in_distribution import why_scarce
from gradbench.report.papers.fill import NOT_BUILT, FilledTable
from gradbench.support.instantiate import instantiate

DOWNLOAD = "would be downloaded"
"""Part of a data set's reason for not being here yet."""


@dataclass
class MissingRun:
    """A run that tables ask for, with all the detectors and challenges that they want of it.

    Attributes:
        cells: how many are empty now.
        absent: why the images of the in-distribution set are not at hand, "" where they are.
        alternatives: whether some challenges may stand in for each other, so that all are named.
    """

    experiment: str
    in_dist: str
    backbone: str
    protocol: str
    absent: str = ""
    cells: int = 0
    detectors: dict[str, None] = field(default_factory=dict)
    challenges: dict[str, None] = field(default_factory=dict)
    alternatives: bool = False

    def arguments(self, settings: Sequence[str] = ()) -> list[str]:
        """Return the arguments of `gradbench run`; the user's own replace those of the table."""
        own = {key: getattr(self, key) for key in ("experiment", "backbone", "protocol")}
        own["detectors"] = f"[{','.join(self.detectors)}]"
        if self.alternatives:
            own["challenges"] = f"[{','.join(self.challenges)}]"
        taken = {word.split("=", 1)[0].lstrip("+") for word in settings}
        return [*(f"{key}={value}" for key, value in own.items() if key not in taken), *settings]

    def folder(self, root: Path, settings: Sequence[str], dirs: Sequence[Path]) -> Path:
        """Return the folder of the run, one for each network, protocol, part and seed."""
        config = compose(self.arguments(settings), dirs)
        network, usual = config["backbone"], compose([f"backbone={self.backbone}"], dirs)
        parts = [self.experiment, network["name"]]
        for key in ("width", "depth", "growth"):
            if key in network and network[key] != usual["backbone"].get(key):
                parts.append(f"{key}{network[key]}")
        parts += [] if config["limit"] is None else [f"limit{config['limit']}"]
        parts += [] if self.protocol == "grouped" else [self.protocol]
        seeds = config["seeds"] or [config["seed"]]
        parts += [] if seeds == [0] else ["seed" + "-".join(map(str, seeds))]
        return root / "tables" / re.sub(r"[^\w.=-]+", "-", "_".join(parts))


def summary(filled: FilledTable) -> list[str]:
    """Return how many cells of a table are measured, and how many are not for each reason."""
    holes = filled.cells.drop(filled.measured.index)
    reasons = Counter(holes["reason"][~holes.index.duplicated()])
    lines = [f"{filled.table.name}: {filled.tally}"]
    unbuilt = {reason: n for reason, n in reasons.items() if reason.startswith(NOT_BUILT)}
    if unbuilt:
        names = ", ".join(reason.removeprefix(f"{NOT_BUILT}: ") for reason in unbuilt)
        lines.append(f"  {sum(unbuilt.values())} {NOT_BUILT}: {names}")
    return lines + [f"  {n} {reason}" for reason, n in reasons.items() if reason not in unbuilt]


def missing_runs(
    tables: Iterable[FilledTable], dirs: Iterable[Path], data: DataSettings
) -> list[MissingRun]:
    """Return the runs that the empty cells of tables ask for, each once.

    For every network of its table a cell asks for its most preferred experiment that is there, on
    an in-distribution set whose images are at hand if there is one. A run is asked for all that its
    tables want of it: what finished runs have done already lies in the store. Of challenges that
    may stand in for each other it is asked for all: what is not at hand becomes a row that says so.
    """
    dirs = tuple(dirs)
    detectors, experiments = (list(group_files(g, dirs)) for g in ("detector", "experiment"))
    absent = cache(lambda in_dist: _why_absent(in_dist, dirs, data))
    runs: dict[tuple[str, ...], MissingRun] = {}
    for filled in tables:
        places = filled.table.places
        there = places[places["method"].isin(detectors) & places["experiment"].isin(experiments)]
        done = {*zip(filled.measured.index, filled.measured["our_backbone"])}
        for (cell, backbone), own in there.groupby(["cell", "backbone"], sort=False):
            at_hand = own[[not absent(name) for name in own["in_dist"]]]
            first = (own if at_hand.empty else at_hand).iloc[0]
            names = (first["experiment"], first["in_dist"], backbone, filled.table.protocols[0])
            run = runs.setdefault(names, MissingRun(*names, absent(first["in_dist"])))
            same = places[(places["cell"] == cell) & (places["in_dist"] == first["in_dist"])
                          & (places["backbone"] == backbone)]  # fmt: skip
            run.challenges |= dict.fromkeys(same["challenge"])
            run.alternatives |= same["challenge"].nunique() > 1
            run.detectors[first["method"]] = None
            run.cells += (cell, backbone) not in done
    return [run for run in runs.values() if run.cells]


def _why_absent(in_dist: str, dirs: tuple[Path, ...], data: DataSettings) -> str:
    """Return why no network can be trained and tested on a set, "" if one can."""
    if in_dist not in group_files("dataset", dirs):
        return f"{in_dist}: no such dataset"
    content = load_member("dataset", in_dist, dirs)
    dataset = instantiate("dataset", in_dist, content, drop=("_target_",))
    for role in ("train", "test"):
        reason = dataset.ready(role, data)
        if reason and DOWNLOAD not in reason:
            return f"{in_dist} ({role}): {reason}"
    if dataset.ready("train", data):
        return ""
    split = next(s for s in dataset.splits("train") if dataset.is_local(s, data))
    count, _ = dataset.count(split, data)
    return "" if count is None else why_scarce(dataset, split, count, data)
