"""A table of cells on its way to text: empty cells point to their reasons below it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from string import ascii_lowercase

from gradbench.reporting.grid import Grid
from gradbench.reporting.numbers import DASH
from gradbench.reporting.view import HOLE, Cell


@dataclass
class Draft:
    """A table of cells.

    Attributes:
        labels: headers of the columns of words.
        columns: headers of the columns of cells.
        rows: words and cells of each row.
        strong: cells to stand out, as (row, column among the cells).
    """

    labels: tuple[str, ...]
    columns: tuple[str, ...]
    rows: list[tuple[tuple[str, ...], list[Cell]]] = field(default_factory=list)
    strong: set[tuple[int, int]] = field(default_factory=set)

    def add(self, labels: Sequence[str], cells: Sequence[Cell]) -> None:
        """Add a row."""
        self.rows.append((tuple(labels), list(cells)))

    def add_ranked(self, labels: Sequence[str], cells: Sequence[Cell]) -> None:
        """Add a row whose highest values stand out where they differ from the others."""
        values = [None if cell.value is None else round(cell.value, 6) for cell in cells]
        known = [value for value in values if value is not None]
        if known and min(known) < max(known):
            here = len(self.rows)
            self.strong |= {(here, c) for c, v in enumerate(values) if v == max(known)}
        self.add(labels, cells)

    def draw(self, render: Callable[[Grid], str]) -> list[str]:
        """Return the rendered table and, where cells are empty, a list of reasons by letter."""
        letters: dict[str, str] = {}
        texts = []
        for labels, cells in self.rows:
            shown = list(labels)
            for cell in cells:
                if cell.reason:
                    letter = letters.setdefault(cell.reason, _letter(len(letters)))
                    shown.append(f"{DASH} ({letter})")
                else:
                    shown.append(cell.text)
            texts.append(tuple(shown))
        width = len(self.labels)
        grid = Grid(
            self.labels + self.columns,
            tuple(texts),
            width,
            frozenset((r, width + c) for r, c in self.strong),
        )
        reasons = [f"- ({letter}) {HOLE}{reason}" for reason, letter in letters.items()]
        return [render(grid.without_empty_columns()), *(["\n".join(reasons)] if reasons else [])]


def _letter(place: int) -> str:
    return ascii_lowercase[place % 26] * (place // 26 + 1)
