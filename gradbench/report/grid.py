"""A table of texts, and the forms in which it is written."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import wrap

ALIKE = "≈"
"""Mark of a number that is not told from the one that stands out."""


@dataclass(frozen=True)
class Grid:
    """A table of texts.

    Attributes:
        header: of the columns.
        rows: cells, as many in each row as in the header.
        labels: columns from the left that hold words; the others hold numbers.
        strong: cells to stand out, as (row, column).
        alike: cells that are not told from those that stand out.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int = 1
    strong: frozenset[tuple[int, int]] = frozenset()
    alike: frozenset[tuple[int, int]] = frozenset()

    def without_empty_columns(self) -> Grid:
        """Return the table without columns that are empty in every row."""
        kept = [c for c in range(len(self.header)) if any(row[c] for row in self.rows)]
        return self._columns(kept)

    def part(self, start: int, stop: int) -> Grid:
        """Return the table with its words and some of its columns of numbers."""
        return self._columns([*range(self.labels), *range(self.labels + start, self.labels + stop)])

    def _columns(self, kept: list[int]) -> Grid:
        place = {column: i for i, column in enumerate(kept)}
        return Grid(
            tuple(self.header[c] for c in kept),
            tuple(tuple(row[c] for c in kept) for row in self.rows),
            sum(c < self.labels for c in kept),
            *(
                frozenset((r, place[c]) for r, c in marked if c in place)
                for marked in (self.strong, self.alike)
            ),
        )


def markdown(grid: Grid) -> str:
    """Return a Markdown table, padded so that its source can be read too."""
    rows = [list(grid.header)]
    for r, row in enumerate(grid.rows):
        cells = [cell.replace("|", "\\|") for cell in row]
        for c in range(len(cells)):
            first, *rest = cells[c].split(" ", 1)
            if (r, c) in grid.strong:
                cells[c] = " ".join([f"**{first}**", *rest])
            elif (r, c) in grid.alike:
                cells[c] = " ".join([first + ALIKE, *rest])
        rows.append(cells)
    widths = [max(3, *(len(row[c]) for row in rows)) for c in range(len(grid.header))]
    lines = [_line(row, widths, grid.labels) for row in rows]
    rule = [
        "-" * width if c < grid.labels else "-" * (width - 1) + ":"
        for c, width in enumerate(widths)
    ]
    lines.insert(1, rule)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def plain(grid: Grid, folded: bool = False) -> str:
    """Return aligned plain text; cells that stand out carry a star, those alike a `≈`.

    `folded` breaks the words of headers that are wider than everything below them.
    """
    rows = []
    for r, row in enumerate(grid.rows):
        cells = list(row)
        for c in range(grid.labels, len(cells)):
            first, *rest = cells[c].split(" ", 1)
            mark = "*" if (r, c) in grid.strong else ALIKE if (r, c) in grid.alike else " "
            cells[c] = " ".join([first + mark, *rest])
        rows.append(cells)
    heads = _folded(grid.header, rows) if folded else [list(grid.header)]
    rows = [*heads, *rows]
    widths = [max(len(row[c].rstrip()) for row in rows) for c in range(len(grid.header))]
    # Cells begin below each other, so that the values stay in line whatever follows them.
    lines = ["  ".join(c.rstrip().ljust(w) for c, w in zip(row, widths)).rstrip() for row in rows]
    lines.insert(len(heads), "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _folded(header: tuple[str, ...], rows: list[list[str]]) -> list[list[str]]:
    """Return the lines of a header that is no wider than its column, where its words allow it."""
    folded = []
    for c, name in enumerate(header):
        width = max((len(row[c].rstrip()) for row in rows), default=1)
        folded.append(wrap(name, max(width, 1), break_long_words=False) or [""])
    tall = max(map(len, folded))
    return [[words[line] if line < len(words) else "" for words in folded] for line in range(tall)]


def _line(cells: list[str], widths: list[int], labels: int) -> list[str]:
    return [
        cell.ljust(width) if c < labels else cell.rjust(width)
        for c, (cell, width) in enumerate(zip(cells, widths))
    ]
