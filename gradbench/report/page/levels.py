"""AUROC against the level of a challenge, drawn from the rows."""

from __future__ import annotations

from gradbench.report.numbers import with_interval
from gradbench.report.page.plot import Axis, Panel, Point, Series, looks, percent_axis
from gradbench.report.view import Line, View

WIDTH, HEIGHT = 200, 168
LEFT, RIGHT, TOP, BOTTOM = 36, 192, 24, 132


def levels(view: View, names: list[str]) -> list[Panel]:
    """Return a chart for every challenge with several levels, a line for every detector.

    Args:
        view: rows of the run.
        names: detectors to draw, as they stand in the rows.
    """
    families: dict[str, list[Line]] = {}
    for line in view.lines():
        if line.level.isdigit():
            families.setdefault(line.challenge, []).append(line)
    drawn = {
        family: found
        for family, lines in families.items()
        if len(lines) > 1 and (found := _series(view, lines, names))
    }
    values = [v for found in drawn.values() for s in found for p in s.points for v in (p.y, p.lo)]
    return [_panel(family, found, values) for family, found in drawn.items()]


def _series(view: View, lines: list[Line], names: list[str]) -> list[Series]:
    found = []
    for name, look in looks(names).items():
        series = Series(name, look)
        for line in sorted(lines, key=lambda line: int(line.level)):
            if spread := view.spread(line, name):
                says = f"{name}, {line.title}: {with_interval(*spread)}"
                series.points.append(Point(int(line.level), *spread, says))
        if series.points:
            found.append(series)
    return found


def _panel(family: str, found: list[Series], values: list[float]) -> Panel:
    at = sorted({point.x for series in found for point in series.points})
    x = Axis(at[0] - 0.25, at[-1] + 0.25, LEFT, RIGHT)
    told = "; ".join(
        f"{series.name} {', '.join(f'{p.y:.1f} at {p.x:g}' for p in series.points)}"
        for series in found
    )
    return Panel(
        title=family,
        says=f"AUROC in percent by level of {family}: {told}.",
        x=x,
        y=percent_axis(values, BOTTOM, TOP),
        x_label="level",
        y_label="AUROC, %",
        series=found,
        width=WIDTH,
        height=HEIGHT,
        x_ticks=[(x.place(level), f"{level:g}") for level in at],
    )
