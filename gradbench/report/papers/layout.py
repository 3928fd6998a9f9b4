"""The cells of a paper's table laid out as in print: panels, rows and columns of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isnan
from string import ascii_lowercase

from gradbench.report.grid import Grid
from gradbench.report.numbers import DASH
from gradbench.report.papers.fill import MERGED, Filled, Filling, Number
from gradbench.report.papers.measures import MEASURED, show, show_difference
from gradbench.report.papers.spec import Table
from gradbench.report.published import Printed

PUBLISHED, INTERVAL, DIFFERENCE = "published", "interval", "difference"
TITLES = {
    "in_dist": "in",
    "challenge": "challenge",
    "level": "level",
    "method": "method",
    "backbone": "network",
    "variant": "variant",
    "metric": "metric",
    "challenge_set": "set",
}


@dataclass
class Notes:
    """Foot-notes by letter, in the order in which they are first needed.

    Attributes:
        letters: beginning of a note -> its letter.
        ends: beginning -> what follows it, each thing once.
    """

    letters: dict[str, str] = field(default_factory=dict)
    ends: dict[str, dict[str, None]] = field(default_factory=dict)

    def mark(self, texts: Sequence[str]) -> str:
        """Return the mark for some notes, "" for none."""
        found = sorted({self._letter(text) for text in texts}, key=lambda x: (len(x), x))
        return f"[{','.join(found)}]" if found else ""

    def lines(self) -> list[str]:
        """Return the notes with their letters."""
        return [
            f"[{letter}] {text}{', '.join(self.ends.get(text, ()))}"
            for text, letter in self.letters.items()
        ]

    def _letter(self, text: str) -> str:
        for kind in MERGED:
            begin = f"{kind}: "
            if text.startswith(begin):
                self.ends.setdefault(begin, {})[text.removeprefix(begin)] = None
                text = begin
        place = len(self.letters)
        letter = ascii_lowercase[place % 26] * (place // 26 + 1)
        return self.letters.setdefault(text, letter)


@dataclass(frozen=True)
class Panel:
    """A part of a table that is set by itself: its title, "" for the only one, and its texts."""

    title: str
    grid: Grid


def panels(filling: Filling, notes: Notes, own_line: bool = False) -> list[Panel]:
    """Lay a table out.

    Each row of the print becomes several lines: published, measured, difference; or published and
    one line for each side of a metric whose convention is not known. A row in which nothing was
    measured has no line for differences.

    Args:
        filling: its cells.
        notes: collects the foot-notes.
        own_line: put intervals in lines of their own, for narrow columns.
    """
    table, layout, found = filling.table, filling.table.layout, []
    for title, cells in _parts(table, filling.cells, layout["panels"]).items():
        columns = list(_parts(table, cells, layout["columns"]))
        labels = [TITLES.get(name, name) for name in layout["rows"]]
        lines: list[tuple[str, ...]] = []
        strong: set[tuple[int, int]] = set()
        alike: set[tuple[int, int]] = set()
        before: tuple[str, ...] = ()
        for block in _blocks(cells, layout["rows"]):
            words = heads(table, block[0].wanted.printed, layout["rows"])
            by_column = {joined(table, c.wanted.printed, layout["columns"]): c for c in block}
            for line, of in _lines(block, own_line):
                shown = tuple(
                    "" if words[: i + 1] == before[: i + 1] else w for i, w in enumerate(words)
                )
                before = words
                texts = []
                for place, column in enumerate(columns):
                    cell = by_column.get(column)
                    texts.append("" if cell is None else _text(cell, line, of, notes, own_line))
                    here = (len(lines), len(words) + 1 + place)
                    if cell is not None and line in cell.best:
                        strong.add(here)
                    if cell is not None and line == MEASURED and cell.near:
                        alike.add(here)
                lines.append((*shown, line, *texts))
        header = (*labels, "", *columns)
        marked = (frozenset(strong), frozenset(alike))
        found.append(Panel(title, Grid(header, tuple(lines), len(labels) + 1, *marked)))
    return found


def value_text(number: Number, unit: str) -> str:
    """Return a measured value in the unit of the print."""
    return show(number.value, unit)


def interval_text(number: Number, unit: str) -> str:
    """Return its interval, its exact lower bound, or the range of several networks; or nothing."""
    if isnan(number.lo) or isnan(number.hi) or number.lo == number.hi:
        return ""
    if number.exact:
        return f"(≥ {show(number.lo, unit)})"
    text = f"{show(number.lo, unit)}{DASH}{show(number.hi, unit)}"
    return f"({text})" if number.networks > 1 else text


def _text(cell: Filled, line: str, of: str, notes: Notes, own_line: bool) -> str:
    """Return a cell's text in one of its lines; `of` is the line that an interval belongs to."""
    unit = cell.wanted.printed.unit
    if line == PUBLISHED:
        return cell.wanted.printed.value
    if line == DIFFERENCE:
        return "" if cell.difference is None else show_difference(cell.difference, unit)
    if line == INTERVAL:
        # without a space: it is one word, and not a value with its company
        return interval_text(cell.numbers[of], unit).replace(" ", "") if of in cell.numbers else ""
    found = cell.numbers.get(line)
    if found is None:
        first = next(iter(cell.wanted.metric.lines))
        if cell.numbers or line not in (first, MEASURED):
            return ""
        return f"{DASH} {notes.mark([cell.reason])}"
    parts = [value_text(found, unit), "" if own_line else interval_text(found, unit)]
    return " ".join(part for part in [*parts, notes.mark(cell.marks)] if part)


def _lines(block: Sequence[Filled], own_line: bool) -> list[tuple[str, str]]:
    """Return the lines of a row of the print, and of intervals the line that they belong to."""
    names = list(dict.fromkeys(name for cell in block for name in cell.wanted.metric.lines))
    if not any(cell.numbers for cell in block):
        return [(PUBLISHED, ""), (MEASURED, "")]
    found = [(PUBLISHED, "")]
    for name in names:
        found.append((name, ""))
        numbers = [cell.numbers[name] for cell in block if name in cell.numbers]
        if own_line and any(interval_text(one, "percent") for one in numbers):
            found.append((INTERVAL, name))
    differ = any(cell.difference is not None for cell in block)
    return [*found, *[(DIFFERENCE, "")] * differ]


def heads(table: Table, printed: Printed, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the words by which some columns of a printed number are shown."""
    return tuple(
        table.metrics[printed.metric].title if c == "metric" else getattr(printed, c)
        for c in columns
    )


def joined(table: Table, printed: Printed, columns: Sequence[str]) -> str:
    """Return the words of several columns as one title."""
    return ", ".join(word for word in heads(table, printed, columns) if word)


def _parts(
    table: Table, cells: Sequence[Filled], columns: Sequence[str]
) -> dict[str, list[Filled]]:
    found: dict[str, list[Filled]] = {}
    for cell in cells:
        found.setdefault(joined(table, cell.wanted.printed, columns), []).append(cell)
    return found


def _blocks(cells: Sequence[Filled], columns: Sequence[str]) -> list[list[Filled]]:
    """Return the cells of each row of the print, rows of equal first words together."""
    found: dict[tuple, list[Filled]] = {}
    for cell in cells:
        found.setdefault(tuple(getattr(cell.wanted.printed, c) for c in columns), []).append(cell)
    order = [list(dict.fromkeys(key[i] for key in found)) for i in range(len(columns))]
    places = sorted(found, key=lambda key: [order[i].index(word) for i, word in enumerate(key)])
    return [found[key] for key in places]
