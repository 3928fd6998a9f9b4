"""Geometry of small charts: axes, ticks, lines, marks, all in units of the drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, floor, isnan, log10

from gradbench.report import style
from gradbench.report.numbers import size

STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 25)
"""Distances of the ticks of a linear axis."""


@dataclass(frozen=True)
class Axis:
    """A scale from values to places in the drawing.

    Attributes:
        low: value at `start`.
        high: value at `end`.
        start: place in the drawing.
        end: likewise; smaller than `start` for an axis that goes upwards.
        log: whether equal ratios have equal distances.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies."""
        low, high, at = (log10(v) if self.log else v for v in (self.low, self.high, value))
        return round(self.start + (at - low) / (high - low) * (self.end - self.start), 2)

    def ticks(self, most: int = 5) -> list[tuple[float, str]]:
        """Return places and labels of round values, at most so many on a linear axis."""
        return [(self.place(value), f"{value:g}") for value in self._round(most)]

    def _round(self, most: int) -> list[float]:
        if self.log:
            decades = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
            for subs in ((1,), (1, 3), (1, 2, 5)):
                values = [sub * 10.0**power for power in decades for sub in subs]
                found = [v for v in values if self.low <= v <= self.high]
                if len(found) > 2:
                    return found
            return found
        for step in STEPS:
            values = [step * i for i in range(ceil(self.low / step), floor(self.high / step) + 1)]
            if len(values) <= most:
                break
        return values


@dataclass(frozen=True)
class Point:
    """A value with its interval (NaN where there is none), and what to say of it."""

    x: float
    y: float
    lo: float
    hi: float
    says: str


@dataclass
class Series:
    """What one detector draws.

    Attributes:
        name: of the detector.
        look: its place among the detectors that are told apart: colour, dashes and mark; None for
            one of the others.
        points: in the order of x.
    """

    name: str
    look: int | None
    points: list[Point] = field(default_factory=list)

    @property
    def colour(self) -> str:
        """Which of the colours of the page: `c0` and so on, `others`."""
        return "others" if self.look is None else f"c{self.look % len(style.COLOURS)}"

    @property
    def dashes(self) -> str:
        """Dashes of the line, "" for a whole one."""
        if self.look is None:
            return ""
        dashes = style.DASHES[self.look % len(style.DASHES)]
        return " ".join(f"{1.5 * d:g}" for d in dashes if d is not None)

    def mark(self, x: float, y: float, r: float = 3) -> str:
        """Return the path of its mark, a smaller dot for one of the others."""
        if self.look is None:
            return mark("o", x, y, 0.6 * r)
        return mark(style.MARKERS[self.look % len(style.MARKERS)], x, y, r)


@dataclass
class Panel:
    """A chart, drawn by the template.

    Attributes:
        title: above it.
        says: all its numbers as text, for those who do not see it.
        x: axis from left to right.
        y: axis from below to above.
        x_label: under the axis.
        y_label: beside it.
        series: what it shows.
        width: of the drawing.
        height: of the drawing.
        x_ticks: places and labels.
        lines: whether points are joined.
        labels: names beside points: line to the point, place, text anchor and name.
    """

    title: str
    says: str
    x: Axis
    y: Axis
    x_label: str
    y_label: str
    series: list[Series]
    width: float
    height: float
    x_ticks: list[tuple[float, str]]
    lines: bool = True
    labels: list[tuple[str, float, float, str, str]] = field(default_factory=list)

    def at(self, point: Point) -> tuple[float, float]:
        """Return the place of a point."""
        return self.x.place(point.x), self.y.place(point.y)

    def path(self, series: Series) -> str:
        """Return the line through the points of a series."""
        return _line([self.at(point) for point in series.points])

    def band(self, series: Series) -> str:
        """Return the outline of the intervals of a series, "" where there are none."""
        known = [point for point in series.points if not isnan(point.lo)]
        if len(known) < 2:
            return ""
        there = [(self.x.place(p.x), self.y.place(p.hi)) for p in known]
        back = [(self.x.place(p.x), self.y.place(p.lo)) for p in reversed(known)]
        return f"{_line([*there, *back])}Z"

    def bar(self, point: Point) -> str:
        """Return the line of an interval, "" where there is none."""
        if isnan(point.lo) or point.lo == point.hi:
            return ""
        x = self.x.place(point.x)
        return _line([(x, self.y.place(point.lo)), (x, self.y.place(point.hi))])


def mark(shape: str, x: float, y: float, r: float) -> str:
    """Return the path of a mark by matplotlib's letter for it."""
    corners = {
        "s": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
        "^": ((0, -1.15), (1.05, 0.85), (-1.05, 0.85)),
        "v": ((0, 1.15), (1.05, -0.85), (-1.05, -0.85)),
        "D": ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
        "P": tuple((a, b) for a, b in _PLUS),
        "X": tuple(((a - b) * 0.75, (a + b) * 0.75) for a, b in _PLUS),
    }
    if shape == "o":
        return f"M{x - r:g} {y:g}a{r:g} {r:g} 0 1 0 {2 * r:g} 0a{r:g} {r:g} 0 1 0 {-2 * r:g} 0Z"
    return f"{_line([(x + r * a, y + r * b) for a, b in corners[shape]])}Z"


_PLUS = (
    *((-0.4, -1.1), (0.4, -1.1), (0.4, -0.4), (1.1, -0.4), (1.1, 0.4), (0.4, 0.4)),
    *((0.4, 1.1), (-0.4, 1.1), (-0.4, 0.4), (-1.1, 0.4), (-1.1, -0.4), (-0.4, -0.4)),
)


def looks(names: Sequence[str]) -> dict[str, int]:
    """Return the look of every detector, the same as in the pictures that the run drew."""
    return {name: place for place, name in enumerate(sorted(set(names)))}


def percent_axis(values: Sequence[float], start: float, end: float) -> Axis:
    """Return an axis of AUROC that holds all values, chance among them."""
    known = [value for value in values if not isnan(value)]
    return Axis(min(48, min(known) - 2), max(100.5, max(known)), start, end)


def milliseconds(value: float) -> str:
    """Return a time as text."""
    return f"{size(value)} ms"


def _line(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.6g} {y:.6g}" for x, y in points)
