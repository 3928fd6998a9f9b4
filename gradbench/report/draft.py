"""A table of cells on its way to text: empty cells point to their reasons below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from string import ascii_lowercase

from gradbench.report.grid import Grid
from gradbench.report.numbers import DASH
from gradbench.report.section import Block
from gradbench.report.view import HOLE, Cell

FEW = 4
"""So many columns of detectors fit beside those of words."""


def many(names: Sequence[str], rows: Sequence) -> bool:
    """Tell whether detectors should be rows instead of columns."""
    return len(names) > max(FEW, len(rows))


@dataclass
class Draft:
    """A table of cells.

    Attributes:
        labels: headers of the columns of words.
        columns: headers of the columns of cells.
        rows: words and cells of each row.
        strong: cells to stand out, as (row, column among the cells).
        alike: cells that are not told from those that stand out.
    """

    labels: tuple[str, ...]
    columns: tuple[str, ...]
    rows: list[tuple[tuple[str, ...], list[Cell]]] = field(default_factory=list)
    strong: set[tuple[int, int]] = field(default_factory=set)
    alike: set[tuple[int, int]] = field(default_factory=set)

    def add(self, labels: Sequence[str], cells: Sequence[Cell]) -> None:
        """Add a row."""
        self.rows.append((tuple(labels), list(cells)))

    def add_ranked(
        self, labels: Sequence[str], cells: Sequence[Cell], alike: Sequence[bool] = ()
    ) -> None:
        """Add a row whose highest values stand out where they differ from the others.

        Args:
            labels: words of the row.
            cells: cells of the row.
            alike: for each cell whether it is not told from the highest.
        """
        values = [None if cell.value is None else round(cell.value, 6) for cell in cells]
        known = [value for value in values if value is not None]
        if known and min(known) < max(known):
            here = len(self.rows)
            self.strong |= {(here, c) for c, v in enumerate(values) if v == max(known)}
            self.alike |= {(here, c) for c, same in enumerate(alike) if same}
        self.add(labels, cells)

    def turned(self, labels: Sequence[str], words: Sequence[Sequence[str]], titles: Sequence[str]):
        """Return the table with a row for each column.

        Args:
            labels: headers of the new columns of words.
            words: of each new row.
            titles: headers of the new columns of cells, one for each row.
        """
        rows = [(tuple(own), [cells[c] for _, cells in self.rows]) for c, own in enumerate(words)]
        marks = ({(c, r) for r, c in marked} for marked in (self.strong, self.alike))
        return Draft(tuple(labels), tuple(titles), rows, *marks)

    def bare(self) -> Draft:
        """Return the table with the values alone, without intervals and ranges."""
        rows = [
            (labels, [cell._replace(text=cell.text.split(" ", 1)[0]) for cell in cells])
            for labels, cells in self.rows
        ]
        return Draft(self.labels, self.columns, rows, self.strong, self.alike)

    def blocks(self) -> list[Block]:
        """Return the table and, where cells are empty, a list of reasons by letter."""
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
            *(frozenset((r, width + c) for r, c in marked) for marked in (self.strong, self.alike)),
        )
        reasons = tuple(f"({letter}) {HOLE}{reason}" for reason, letter in letters.items())
        return [grid.without_empty_columns(), *([reasons] if reasons else [])]


def _letter(place: int) -> str:
    return ascii_lowercase[place % 26] * (place // 26 + 1)
