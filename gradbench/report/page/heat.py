"""The transfer matrix as a heat map."""

from __future__ import annotations

from dataclasses import dataclass

from gradbench.report.across import transferred
from gradbench.report.numbers import number
from gradbench.report.view import View

CELL, LINE = 46, 24
"""Width and height of a cell."""
LETTER = 5.7
"""Width of a letter of a label."""
SLANT = 0.72
"""Share of a column's label that counts for the height, set at 45 degrees."""


@dataclass(frozen=True)
class Tile:
    """A cell of the heat map.

    Attributes:
        x: left side.
        y: upper side.
        text: its number, "" where there is none.
        says: what it holds, in words.
        depth: 0 at chance to 1 at 100 or 0 percent.
        inverted: whether it is below chance.
        own: whether the detector was fitted on this very challenge.
    """

    x: float
    y: float
    text: str
    says: str
    depth: float
    inverted: bool
    own: bool


@dataclass(frozen=True)
class Heat:
    """A heat map of one detector.

    Attributes:
        detector: its name.
        says: what it shows, in words.
        tiles: its cells.
        rows: place and text of the labels at the left: what it was fitted on.
        columns: likewise of those above: what it was measured on.
        width: of the drawing.
        height: likewise.
        left: where cells begin.
        top: likewise.
    """

    detector: str
    says: str
    tiles: list[Tile]
    rows: list[tuple[float, str]]
    columns: list[tuple[float, str]]
    width: float
    height: float
    left: float
    top: float


def heat(view: View, names: list[str]) -> list[Heat]:
    """Return a heat map for every detector that was fitted on one challenge for the others."""
    fitted: dict[str, list[str]] = {}
    for name in names:
        detector, at, on = name.partition("@")
        if at:
            fitted.setdefault(detector, []).append(on)
    return [_heat(view, detector, on) for detector, on in fitted.items()]


def _heat(view: View, detector: str, fitted_on: list[str]) -> Heat:
    lines = view.lines()
    left = 12 + LETTER * max(len(on) for on in fitted_on)
    top = 16 + SLANT * LETTER * max(len(line.title) for line in lines)
    tiles, said = [], []
    for r, on in enumerate(fitted_on):
        for c, line in enumerate(lines):
            cell, own = transferred(view, f"{detector}@{on}", line)
            known = cell.value is not None
            says = f"fitted on {on}, measured on {line.title}: {cell.text or 'not measured'}"
            said.append(says)
            tiles.append(
                Tile(
                    round(left + c * CELL, 2),
                    round(top + r * LINE, 2),
                    number(cell.value) if known else "",
                    says + (" (other images of the same challenge)" if own else ""),
                    round(abs(cell.value - 50) / 50, 3) if known else 0,
                    known and cell.value < 50,
                    own,
                )
            )
    right = SLANT * LETTER * len(lines[-1].title)  # the last label leans beyond its column
    return Heat(
        detector,
        f"AUROC of {detector}: {'; '.join(said)}.",
        tiles,
        [(top + (r + 0.5) * LINE, on) for r, on in enumerate(fitted_on)],
        [(left + (c + 0.5) * CELL, line.title) for c, line in enumerate(lines)],
        round(left + len(lines) * CELL + max(8, right - CELL / 2), 2),
        round(top + len(fitted_on) * LINE + 4, 2),
        left,
        top,
    )
