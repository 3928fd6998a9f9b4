"""Which finished runs a table is made from: no two networks, parts or protocols side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gradbench.config import group_files
from gradbench.report.papers.rules import Place, Wanted
from gradbench.report.papers.runs import Run, moment
from gradbench.report.papers.spec import Table

Ground = tuple[str, str]
"""In-distribution set and backbone."""


@dataclass
class Chosen:
    """The runs of a table.

    Attributes:
        runs: by in-distribution set and backbone; the first leads, and the others have its network,
            images and protocol and fill in what it lacks.
        told: what the reader must know of the choice.
    """

    runs: dict[Ground, list[Run]] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def at(self, place: Place) -> list[Run]:
        """Return the runs that may hold a place, the preferred one first."""
        runs = self.runs.get((place.in_dist, place.backbone), [])
        kept = [run for run in runs if run.name in place.experiments]
        return sorted(kept, key=lambda run: place.experiments.index(run.name))


def choose(table: Table, runs: Sequence[Run], dirs: Iterable[Path] = ()) -> Chosen:
    """Choose the runs of a table.

    On each ground the published size of the network goes before a narrower one, then protocols and
    experiments go by the table's preference, then the run that fills most cells wins, of several
    the newest. A run without a number of the table leads only where no run has one.

    Args:
        table: what is wanted.
        runs: the newest first.
        dirs: folders of the user's own configuration files.
    """
    chosen, dirs = Chosen(), tuple(dirs)
    for ground, (wanted, experiments) in _grounds(table).items():
        fits = [
            run
            for run in runs
            if (run.in_dist, run.backbone) == ground
            and run.name in experiments
            and run.protocol in table.protocols
        ]
        if not fits:
            continue

        def rank(run: Run, experiments=experiments, wanted=wanted) -> tuple:
            filled = sum(bool(cell_rows(run, one, place)) for one, place in wanted)
            return (
                not filled,
                bool(narrower(run, dirs)),
                table.protocols.index(run.protocol),
                experiments.index(run.name),
                -filled,
                -moment(run.begun),
            )

        ranks = {run.path: rank(run) for run in fits}
        lead, *others = sorted(fits, key=lambda run: ranks[run.path])
        chosen.runs[ground] = [lead, *(r for r in others if r.footing == lead.footing)]
        left = [run for run in others if run.footing != lead.footing]
        ties = [str(run.path) for run in left if ranks[run.path] == ranks[lead.path]]
        older = [str(run.path) for run in left if str(run.path) not in ties]
        if ties:
            chosen.told.append(
                f"{lead.path} and {', '.join(ties)} began at the same time and differ in network, "
                "images or protocol; the first by name was taken."
            )
        if older:
            chosen.told.append(
                f"Left aside, for another network, part of the images or protocol than in "
                f"{lead.path}: {', '.join(older)}."
            )
    return chosen


def cell_rows(run: Run, one: Wanted, place: Place) -> dict[str, list[Any]]:
    """Return the rows of every line of a cell that a run has, one row for each seed."""
    if one.hole or run.name not in place.experiments:
        return {}
    if (run.in_dist, run.backbone) != (place.in_dist, place.backbone):
        return {}
    found = {
        line: run.value(place.challenge, place.level, one.detector, *measure)
        for line, measure in one.metric.lines.items()
    }
    return {line: rows for line, rows in found.items() if rows}


def narrower(run: Run, dirs: Iterable[Path] = ()) -> str:
    """Return in which sizes a run's network differs from its configuration file, "" if in none."""
    file = group_files("backbone", dirs).get(run.backbone)
    if file is None:
        return ""
    usual = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    found = run.config["backbone"]
    return ", ".join(
        f"{key} {found[key]} instead of {value}"
        for key, value in usual.items()
        if type(value) is int and key != "narrower" and found.get(key, value) != value
    )


def _grounds(table: Table) -> Mapping[Ground, tuple[list[tuple[Wanted, Place]], list[str]]]:
    """Return the cells of each ground, and its experiments by preference."""
    found: dict[Ground, tuple[list, list]] = defaultdict(lambda: ([], []))
    for one in table.wanted:
        for place in () if one.hole else one.places:
            wanted, experiments = found[place.in_dist, place.backbone]
            wanted.append((one, place))
            experiments += [name for name in place.experiments if name not in experiments]
    return found
