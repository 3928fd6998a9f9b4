"""What an image costs a detector against what it gives, drawn from costs.csv and the rows."""

from __future__ import annotations

import csv
import io
from math import isnan
from pathlib import Path

from gradbench.errors import GradbenchError
from gradbench.report.costs import (
    SCORING,
    Cost,
    Costs,
    one_after_another,
    scoring_of,
    together,
)
from gradbench.report.finished import LARGEST
from gradbench.report.numbers import with_interval
from gradbench.report.page.plot import (
    Axis,
    Panel,
    Point,
    Series,
    looks,
    milliseconds,
)
from gradbench.report.page.source import Source
from gradbench.report.view import Line, View
from gradbench.support.files import read_bytes

WIDTH, HEIGHT = 330, 236
LEFT, RIGHT, TOP, BOTTOM = 38, 322, 24, 198
LETTER, LINE, GAP = 5.4, 11, 11
"""Width of a letter of a name, distance of two names, and of a name from its mark."""
MOST = 6
"""Challenges that are drawn one by one where there is no mean of them."""


def read_costs(path: Path) -> tuple[Costs, dict[str, int]]:
    """Return what costs.csv tells, and the backward passes of each detector for an image.

    Raises:
        GradbenchError: if it cannot be read.
    """
    costs: Costs = {}
    backward: dict[str, int] = {}
    try:
        text = read_bytes(path, LARGEST).decode("utf-8")
        for line in csv.DictReader(io.StringIO(text, newline=""), strict=True):
            images = int(_number(line["images"]))
            rate = _number(line["images_per_second"])
            seconds = images / rate if rate else _number(line["seconds"])
            cost = costs[line["step"], line["what"]] = Cost(images, seconds)
            cost.with_passes = _number(line.get("with_passes_per_second")) or None
            if line["step"] in SCORING and line.get("forward_passes"):
                backward[line["what"].partition("@")[0]] = int(line["backward_passes"])
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as fault:
        raise GradbenchError(f"{path} cannot be read: {type(fault).__name__}: {fault}") from fault
    return costs, backward


def _number(text: str | None) -> float:
    """Return a number of costs, 0 where none was noted.

    Raises:
        ValueError: if it is none, or none that a machine takes.
    """
    value = float(text or 0)
    if value and not 1e-9 < value < 1e15:
        raise ValueError(f"'{text}' is no number of images, seconds or images per second")
    return value


def times(source: Source) -> tuple[dict[str, float], list[str]]:
    """Return milliseconds for an image with all passes, and the detectors that have none told."""
    found: dict[str, float] = {}
    there = source.run.has("costs.csv")
    costs, backward = read_costs(source.run.file("costs.csv")) if there else ({}, {})
    for name, what in source.about["detectors"].items():
        scoring = scoring_of(costs, name)
        speed = scoring.with_passes or _of_before(scoring, costs, what["reads"], backward.get(name))
        if speed:
            found[name] = 1000 / speed
    return found, [name for name in source.about["detectors"] if name not in found]


def _of_before(scoring: Cost, costs: Costs, reads: list[str], backward: int | None) -> float | None:
    """Return images per second of older runs, which did not time passes over perturbed images."""
    norms = sum(read.startswith("squared_norms") for read in reads)
    if backward is None or backward > norms:
        return None
    return one_after_another(scoring, costs.get(("passes", together({"reads": reads})), Cost()))


def costs(source: Source, taken: dict[str, float], names: list[str]) -> list[Panel]:
    """Return a chart for every kind of challenge: its mean, or what there is alone.

    Args:
        source: the run.
        taken: milliseconds for an image, by detector.
        names: detectors that are told apart and named; the others are dots.
    """
    view = source.view
    order = looks(names)
    found: list[tuple[Line, list[Series]]] = []
    for line in _shown(view):
        series = []
        for name, ms in taken.items():
            if spread := view.spread(line, name):
                says = f"{name}: AUROC {with_interval(*spread)}, {milliseconds(ms)} an image"
                series.append(Series(name, order.get(name), [Point(ms, *spread, says)]))
        if len(series) > 1:
            found.append((line, series))
    return [_panel(line, series) for line, series in found]


def _shown(view: View) -> list[Line]:
    lines = view.lines()
    means = {line.kind: line for line in lines if line.is_mean}
    single = [line for line in lines if line.kind not in means]
    return [*means.values(), *(single if len(single) <= MOST else [])]


def _panel(line: Line, found: list[Series]) -> Panel:
    points = [series.points[0] for series in found]
    x = Axis(min(p.x for p in points) / 1.6, max(p.x for p in points) * 1.6, LEFT, RIGHT, log=True)
    panel = Panel(
        title=line.title,
        says=f"{line.title}: {'; '.join(point.says for point in points)}.",
        x=x,
        y=_close([v for p in points for v in (p.y, p.lo, p.hi) if not isnan(v)]),
        x_label="milliseconds per image (logarithmic)",
        y_label="AUROC, %",
        series=found,
        width=WIDTH,
        height=HEIGHT,
        x_ticks=x.ticks(),
        lines=False,
    )
    panel.labels = _labels(panel)
    return panel


def _close(values: list[float]) -> Axis:
    """Return an axis that holds the values with little room around them."""
    room = max(2, 0.08 * (max(values) - min(values)))
    high = min(100 + room / 4, max(values) + room)
    return Axis(min(min(values) - room, high - 5), high, BOTTOM, TOP)


def _labels(panel: Panel) -> list[tuple[str, float, float, str, str]]:
    """Place names beside their marks, to the side with room, moved apart where they would meet."""
    taken: list[tuple[float, float, float]] = []
    labels = []
    named = [series for series in panel.series if series.look is not None]
    for series in sorted(named, key=lambda series: panel.at(series.points[0])[1]):
        x, at = panel.at(series.points[0])
        wide = LETTER * len(series.name)
        right = x + GAP + wide <= RIGHT
        low, high = (x + GAP, x + GAP + wide) if right else (x - GAP - wide, x - GAP)
        y = min(max(at, TOP + 1), BOTTOM - 3)
        while any(abs(y - other) < LINE and low < b and high > a for other, a, b in taken):
            y += 1
        if y > BOTTOM:  # no room below: above all others
            y = min(other for other, a, b in taken if low < b and high > a) - LINE
        taken.append((y, low, high))
        end = low - 2 if right else high + 2
        leader = f"M{x:g} {at:g}L{end:g} {y:g}" if abs(y - at) > 3 else ""
        labels.append((leader, low if right else high, y + 3.2, "start" if right else "end",
                       series.name))  # fmt: skip
    return labels
