"""The cells of a paper's table, filled from finished runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import Any

from gradbench.config import group_files
from gradbench.report.papers.chosen import Chosen, cell_rows, choose
from gradbench.report.papers.marks import marks
from gradbench.report.papers.measures import MEASURED, comparable, points
from gradbench.report.papers.rules import Place, Wanted
from gradbench.report.papers.runs import Run
from gradbench.report.papers.spec import Table

NOT_BUILT = "method not built"
NOT_RUN = "not run"
NO_DETECTOR = "run without the detector"
MERGED = (NOT_BUILT, NOT_RUN, NO_DETECTOR)
"""Reasons of which one note is enough: the place of a cell tells which part of it is its own."""


@dataclass(frozen=True)
class Number:
    """A measured number in percent.

    Attributes:
        value: of one network, or the mean of several.
        lo: of its interval, or of the range of several networks; NaN where there is neither.
        hi: likewise.
        networks: how many.
        exact: whether `lo` is an exact one-sided bound.
    """

    value: float
    lo: float
    hi: float
    networks: int = 1
    exact: bool = False


@dataclass
class Filled:
    """A cell.

    Attributes:
        wanted: what is printed, and how it is measured.
        numbers: measured, by line; empty for a hole.
        reason: of the hole.
        run: that the numbers are from.
        place: where they were measured.
        marks: what the reader must know of them.
        rows: of the run, by line.
        best: lines in which it is the best of its group, `published` among them.
        near: whether it is measured worse than the best, but not distinguishably.
    """

    wanted: Wanted
    numbers: dict[str, Number] = field(default_factory=dict)
    reason: str = ""
    run: Run | None = None
    place: Place | None = None
    marks: tuple[str, ...] = ()
    rows: dict[str, list[Any]] = field(default_factory=dict)
    best: set[str] = field(default_factory=set)
    near: bool = False

    @property
    def difference(self) -> float | None:
        """Measured less published in points, None where that is not known or not fair."""
        printed, metric = self.wanted.printed, self.wanted.metric
        if not (self.numbers and metric.difference and comparable(printed.unit)):
            return None
        (number,) = self.numbers.values()
        return number.value - points(printed.number, printed.unit)


@dataclass(frozen=True)
class Filling:
    """A table with its cells.

    Attributes:
        table: what it is.
        cells: in the order of the print.
        chosen: runs that it is made from.
    """

    table: Table
    cells: tuple[Filled, ...]
    chosen: Chosen

    @property
    def runs(self) -> list[Run]:
        """Runs that gave a number, in the order of the cells."""
        return list({id(c.run): c.run for c in self.cells if c.run is not None}.values())

    @property
    def groups(self) -> list[list[Filled]]:
        """Cells that are compared with each other."""
        found: dict[tuple, list[Filled]] = defaultdict(list)
        for cell in self.cells:
            found[self.table.group(cell.wanted.printed)].append(cell)
        return list(found.values())


def fill(table: Table, runs: Sequence[Run], dirs: Iterable[Path] = ()) -> Filling:
    """Fill a table from finished runs; every cell has numbers or the reason why it has none.

    Cells that are compared with each other are measured in the same place: the preferred one at
    which any of them is.

    Args:
        table: to be filled.
        runs: the newest first.
        dirs: folders of the user's own configuration files.
    """
    dirs = tuple(dirs)
    chosen = choose(table, runs, dirs)
    filling = Filling(table, tuple(Filled(one) for one in table.wanted), chosen)
    built = {group: set(group_files(group, dirs)) for group in ("detector", "experiment")}
    for group in filling.groups:
        place = _place(group, chosen)
        for cell in group:
            if place is not None:
                _measure(cell, place, chosen, dirs)
            if not cell.numbers:
                cell.reason = _reason(cell.wanted, place, chosen, built)
        _best(group)
    return filling


def number(rows: Sequence[Any]) -> Number:
    """Return the number of one network with its interval, or of several with their range."""
    if len(rows) == 1:
        row = rows[0]
        exact = "exact" in row.note and row.hi == 100 and not isnan(row.lo)
        return Number(row.value, row.lo, row.hi, 1, exact)
    values = [row.value for row in rows]
    return Number(sum(values) / len(values), min(values), max(values), len(values))


def _place(group: Sequence[Filled], chosen: Chosen) -> Place | None:
    """Return the preferred place at which any cell of a group is measured."""
    for place in dict.fromkeys(place for cell in group for place in cell.wanted.places):
        for run in chosen.at(place):
            if any(cell_rows(run, cell.wanted, place) for cell in group):
                return place
    return None


def _measure(cell: Filled, place: Place, chosen: Chosen, dirs: tuple[Path, ...]) -> None:
    if place not in cell.wanted.places:
        return
    for run in chosen.at(place):
        rows = cell_rows(run, cell.wanted, place)
        if rows:
            cell.numbers = {line: number(found) for line, found in rows.items()}
            cell.run, cell.place, cell.rows = run, place, rows
            cell.marks = marks(run, place, next(iter(rows.values()))[0], dirs)
            return


def _reason(one: Wanted, place: Place | None, chosen: Chosen, built: dict[str, set[str]]) -> str:
    """Return why a cell is empty."""
    if one.hole:
        return one.hole
    if one.detector not in built["detector"]:
        return f"{NOT_BUILT}: {one.printed.method}"
    places = [place] if place is not None else list(one.places)
    for at in places:
        for run in chosen.at(at):
            if reason := run.reason(at.challenge, at.level, one.detector):
                return f"not measured: {reason}"
    if place is not None:
        return f"{NO_DETECTOR}: {one.detector} on {place.in_dist} with {place.backbone}"
    there: dict[str, str] = {}  # in-distribution set -> its preferred experiment that is built
    for at in places:
        for name in at.experiments:
            if name in built["experiment"]:
                there.setdefault(at.in_dist, name)
    if not there:
        return f"experiment not built: {' or '.join(places[0].experiments)}"
    return f"{NOT_RUN}: {' or '.join(there.values())} with {places[0].backbone}"


def _best(group: Sequence[Filled]) -> None:
    """Mark the best cells of a group in every line, where there is something to choose from."""
    lines: dict[str, list[tuple[float, Filled]]] = defaultdict(list)
    for cell in group:
        sign = 1 if cell.wanted.printed.higher_is_better == "1" else -1
        lines["published"].append((sign * cell.wanted.printed.number, cell))
        for line, found in cell.numbers.items():
            lines[line].append((sign * round(found.value, 6), cell))
    for line, values in lines.items():
        best = max(value for value, _ in values)
        if min(value for value, _ in values) < best:
            for value, cell in values:
                if value == best:
                    cell.best.add(line)
    _near(group)


def _near(group: Sequence[Filled]) -> None:
    """Mark the cells whose AUROC the paired test of their run does not tell from the best."""
    measured = [cell for cell in group if cell.numbers and cell.wanted.metric.is_auroc]
    for best in [cell for cell in measured if MEASURED in cell.best]:
        for cell in measured:
            if MEASURED not in cell.best and cell.run is best.run:
                detectors = cell.wanted.detector, best.wanted.detector
                near = cell.run.alike(cell.place.challenge, cell.place.level, *detectors)
                cell.near = cell.near or near
