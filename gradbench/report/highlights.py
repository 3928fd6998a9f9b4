"""The highlights of a run, read off its tables: which detector is highest, and every warning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gradbench.report.numbers import percent
from gradbench.report.run_rows import Line, RunRows
from gradbench.report.run_tables import ALARM, round_trip_of

FLOOR = 60
"""A round trip that is told apart less well than this is no warning."""


def highlights(rows: RunRows, names: Sequence[str]) -> list[str]:
    """Return which detectors are highest on how many challenges, and every warning.

    `names` are those of detectors as they stand in the rows.
    """
    lines = [line for line in rows.lines() if not line.is_mean]
    below = []
    for line in lines:
        cells = {name: rows.cell(line, name) for name in names}
        low = [f"{n} ({c.text})" for n, c in cells.items() if c.value is not None and c.high < 50]
        below += [f"{line.title}: {', '.join(low)}"] if low else []
    inverted = [f"Below chance, so inverted: {'; '.join(below)}."] if below else []
    return [*_highest(rows, lines, names), *_beside_controls(rows, names), *inverted]


def _highest(rows: RunRows, lines: Sequence[Line], names: Sequence[str]) -> list[str]:
    best: Counter[str] = Counter()
    close = ranked = 0
    for line in lines:
        values = {n: v for n in names if (v := rows.cell(line, n).value) is not None}
        if len(values) > 1:
            ranked += 1
            best.update(name for name in values if values[name] == max(values.values()))
            close += any(rows.is_alike(line, name) for name in values)
    if not ranked:
        return []
    counts = ", ".join(f"{name} on {n}" for name, n in best.most_common())
    tail = f"; on {close} another detector is not distinguishable from it" if close else ""
    each = " (levels counted one by one)" * any(line.level for line in lines)
    return [f"Highest AUROC of {ranked} challenge{'s' * (ranked > 1)}{each}: {counts}{tail}."]


def _beside_controls(rows: RunRows, names: Sequence[str]) -> list[str]:
    """Return warnings of the random labels and of round trips."""
    warnings = []
    for line in rows.lines(("random_labels",)):
        for name in names:
            if (p := rows.p_value(line, name)) and p[1] < ALARM:
                warnings.append(f"Warning: {name} tells random labels apart ({p[0]}).")
    for line in rows.lines(("round_trip",)):
        trips = {n: v for n in names if (v := rows.cell(line, n).value) is not None and v >= FLOOR}
        for same in round_trip_of(rows, line):
            above = [
                f"{name} ({percent(trip)} against {percent(own)})"
                for name, trip in trips.items()
                if (own := rows.cell(same, name).value) is not None and trip >= own
            ]
            if above:
                warnings.append(
                    "Warning: clean images that merely went through the resampling of "
                    f"{same.title} are told apart as well as {same.title} itself or better: "
                    f"{', '.join(above)}."
                )
    return warnings
