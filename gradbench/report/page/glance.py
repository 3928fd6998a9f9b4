"""What a run shows in a few sentences, each read off its tables: what is highest, what warns."""

from __future__ import annotations

from collections.abc import Sequence

from gradbench.report.numbers import number
from gradbench.report.sections import ALARM
from gradbench.report.view import Line, View

FLOOR = 60
"""A round trip that is told apart less well than this is no warning."""


def glance(view: View, names: Sequence[str]) -> list[str]:
    """Return which detectors are highest on how many challenges, and every warning.

    Args:
        view: rows of the run.
        names: detectors as they stand in the rows.
    """
    lines = [line for line in view.lines() if not line.is_mean]
    return [
        *_highest(view, lines, names),
        *_beside_controls(view, names),
        *_inverted(view, lines, names),
    ]


def _highest(view: View, lines: Sequence[Line], names: Sequence[str]) -> list[str]:
    best: dict[str, int] = {}
    close = ranked = 0
    for line in lines:
        values = {name: cell.value for name in names if (cell := view.cell(line, name)).text}
        if len(values) < 2:
            continue
        ranked += 1
        top = max(values.values())
        for name in (name for name, value in values.items() if value == top):
            best[name] = best.get(name, 0) + 1
        close += any(view.alike(line, name) for name in values)
    if not ranked:
        return []
    told = ", ".join(f"{name} on {n}" for name, n in sorted(best.items(), key=lambda x: -x[1]))
    tail = f"; on {close} another detector is not distinguishable from it" if close else ""
    what = f"challenge{'s' * (ranked > 1)}"
    what += " (levels counted one by one)" * any(line.level for line in lines)
    return [f"Highest AUROC of {ranked} {what}: {told}{tail}."]


def _beside_controls(view: View, names: Sequence[str]) -> list[str]:
    """Return warnings of the random labels and of round trips."""
    found = []
    for line in view.lines(("control",)):
        kind, _, of = line.challenge.partition(":")
        for name in names:
            p = view.p_value(line, name)
            if kind == "random_labels" and p and p[1] < ALARM:
                found.append(f"Warning: {name} tells random labels apart ({p[0]}).")
        trips = {name: v for name in names if kind == "round_trip" and
                 (v := view.cell(line, name).value) is not None and v >= FLOOR}  # fmt: skip
        for other in view.lines():
            if of and other.challenge == of:
                found += _round_trip(view, other, trips)
    return found


def _round_trip(view: View, of: Line, trips: dict[str, float]) -> list[str]:
    """Return who tells the mere resampling apart at least as well as the challenge itself."""
    above = [
        f"{name} ({number(value)} against {number(own)})"
        for name, value in trips.items()
        if (own := view.cell(of, name).value) is not None and value >= own
    ]
    if not above:
        return []
    return [
        f"Warning: clean images that merely went through the resampling of {of.title} are told "
        f"apart as well as {of.title} itself or better: {', '.join(above)}."
    ]


def _inverted(view: View, lines: Sequence[Line], names: Sequence[str]) -> list[str]:
    """Return whose interval lies below chance: an inverted score, not chance."""
    found = []
    for line in lines:
        low = [
            f"{name} ({view.cell(line, name).text})"
            for name in names
            if (spread := view.spread(line, name)) and spread[2] < 50
        ]
        if low:
            found.append(f"{line.title}: {', '.join(low)}")
    return [f"Below chance, so inverted: {'; '.join(found)}."] if found else []
