"""A filled table laid out as in print: panels of rows and columns, with foot-notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_lowercase
from typing import Any

import pandas

from gradbench.report.numbers import DASH, percent
from gradbench.report.papers.fill import MARKS, NO_DETECTOR, NOT_BUILT, NOT_RUN
from gradbench.report.papers.table import MEASURED, PaperTable
from gradbench.report.table import TextTable
from gradbench.run.rows import DEVIATION

PUBLISHED, INTERVAL, DIFFERENCE = "published", "interval", "difference"
TITLES = {"in_dist": "in", "backbone": "network", "challenge_set": "set"}
Cell = Mapping[str, Any]
"""A row of the tidy table; None for a missing number."""
MERGED = tuple(f"{kind}: " for kind in (NOT_BUILT, NOT_RUN, NO_DETECTOR))
"""Begins of reasons of which one note is enough: the place tells which part is a number's own."""


class Notes:
    """Foot-notes by letter, in the order in which they are first needed."""

    def __init__(self):
        self._ends: dict[str, dict[str, None]] = {}

    def mark(self, texts: Sequence[str]) -> str:
        """Return the mark for some notes, "" for none."""
        letters = sorted({self._letter(text) for text in texts}, key=lambda x: (len(x), x))
        return f"[{','.join(letters)}]" if letters else ""

    def lines(self) -> list[str]:
        """Return the notes with their letters."""
        return [
            f"[{_letter(place)}] {text}{', '.join(ends)}"
            for place, (text, ends) in enumerate(self._ends.items())
        ]

    def _letter(self, text: str) -> str:
        begin = next((begin for begin in MERGED if text.startswith(begin)), text)
        self._ends.setdefault(begin, {})[text.removeprefix(begin)] = None
        return _letter(list(self._ends).index(begin))


def _letter(place: int) -> str:
    return ascii_lowercase[place % 26] * (place // 26 + 1)


def panels(
    table: PaperTable, cells: pandas.DataFrame, notes: Notes, width: int = 0
) -> dict[str, list[TextTable]]:
    """Lay a table out: title of each panel ("" for the only one) -> its grids.

    Each row of the print becomes several lines: published, and for every network measured,
    interval, difference; a metric whose convention is not known has a line for each of its measures
    and no difference. A grid that is wider than `width` columns of text (0 for any) is cut in
    pieces; `notes` collects the foot-notes, those of all numbers of a line beside its name.
    """
    several = cells["network"][cells["measured"].notna()].nunique() > 1
    by_panel: dict[str, list[Cell]] = {}
    for cell in cells.astype(object).where(cells.notna(), None).to_dict("records"):
        by_panel.setdefault(_title(table, cell, "panels"), []).append(cell)
    laid_out = {}
    for panel, own in by_panel.items():
        columns = list(dict.fromkeys(_title(table, cell, "columns") for cell in own))
        for count in range(len(columns), 0, -1):
            pieces = [columns[i : i + count] for i in range(0, len(columns), count)]
            grids = [_grid(table, own, piece, notes, several) for piece in pieces]
            if not width or max(map(_width, grids)) <= width:
                break
        laid_out[panel] = grids
    return laid_out


def labels(table: PaperTable, cell: Cell, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the words by which some columns of a printed number are shown."""
    return tuple(table.metrics[cell[c]].title if c == "metric" else cell[c] for c in columns)


def _title(table: PaperTable, cell: Cell, direction: str) -> str:
    return ", ".join(filter(None, labels(table, cell, table.layout[direction])))


def _grid(
    table: PaperTable, cells: Sequence[Cell], columns: Sequence[str], notes: Notes, several: bool
) -> TextTable:
    """Return some columns of a panel as texts; of `several` networks lines bear the names."""
    names = table.layout["rows"]
    blocks: dict[tuple, list[Cell]] = {}
    for cell in cells:
        blocks.setdefault(tuple(cell[name] for name in names), []).append(cell)
    # Rows of equal first words stand together, in the order of the print.
    order = [list(dict.fromkeys(key[i] for key in blocks)) for i in range(len(names))]
    rows, marks, before = [], {}, ()
    for key in sorted(blocks, key=lambda k: [words.index(w) for words, w in zip(order, k)]):
        block = blocks[key]
        words = labels(table, block[0], names)
        by_column: dict[str, list[Cell]] = {}
        for cell in block:
            by_column.setdefault(_title(table, cell, "columns"), []).append(cell)
        for line, of, network in _lines(table, block):
            label = ["" if words[: i + 1] == before[: i + 1] else w for i, w in enumerate(words)]
            before = words
            shown = {
                column: [
                    cell
                    for cell in own
                    if line == PUBLISHED or not network or cell["network"] in (network, "")
                ]
                for column, own in by_column.items()
            }
            shared = _shared([cell for own in shown.values() for cell in own], line)
            title = f"{_line_title(line, network, block, several)} {notes.mark(shared)}".strip()
            texts = []
            for place, column in enumerate(columns, len(names) + 1):
                own = shown.get(column, [])
                if any(line in cell["best"].split() for cell in own):
                    marks[len(rows), place] = "best"
                elif line == MEASURED and any(cell["near_best"] for cell in own):
                    marks[len(rows), place] = "alike"
                texts.append(_text(table, own, line, of, notes, shared))
            rows.append((*label, title, *texts))
    header = (*(TITLES.get(name, name) for name in names), "", *columns)
    return TextTable(header, tuple(rows), len(names) + 1, marks)


def _lines(table: PaperTable, block: Sequence[Cell]) -> list[tuple[str, str, str]]:
    """Return the lines of a row of the print: line, that which an interval belongs to, network."""
    metrics = dict.fromkeys(cell["metric"] for cell in block)
    names = dict.fromkeys(line for m in metrics for line in table.metrics[m].measures)
    networks = dict.fromkeys(c["network"] for c in block if c["measured"] is not None)
    lines = [(PUBLISHED, "", "")]
    for network in networks:
        own = [cell for cell in block if cell["network"] == network]
        for name in names:
            lines.append((name, "", network))
            if any(_interval(cell) for cell in own if cell["line"] == name):
                lines.append((INTERVAL, name, network))
        differ = any(cell["difference"] is not None for cell in own)
        lines += [(DIFFERENCE, "", network)] * differ
    return lines if networks else [*lines, (MEASURED, "", "")]


def _line_title(line: str, network: str, block: Sequence[Cell], several: bool) -> str:
    """Return a line's name, with the network where there are several."""
    if not several or not network or line in (INTERVAL, DIFFERENCE):
        return line
    # a deviation over networks is a single number
    own = (c for c in block if c["network"] == network and not c["metric"].endswith(DEVIATION))
    count = max((int(cell["networks"] or 0) for cell in own), default=0)
    return f"{line}, {network}" + (f", {count} seeds" if count > 1 else "")


def _shared(cells: Sequence[Cell], line: str) -> list[str]:
    """Return the remarks of all measured numbers of a line, or the reason of all its holes."""
    measured = [c["marks"].split(MARKS) for c in cells if c["line"] == line]
    if not measured and line not in (PUBLISHED, INTERVAL, DIFFERENCE):
        measured = [[c["reason"]] for c in cells]
    first, *others = measured or [[]]
    return [text for text in first if text and all(text in other for other in others)]


def _text(
    table: PaperTable,
    own: Sequence[Cell],
    line: str,
    of: str,
    notes: Notes,
    shared: Sequence[str],
) -> str:
    """Return a number's text in one of its lines, without the remarks that the line has.

    `of` is the line that an interval belongs to.
    """
    if not own:
        return ""
    first = own[0]
    if line == PUBLISHED:
        return first["published"]
    if line == DIFFERENCE:
        known = first["difference"] is not None
        return signed(first["difference"], first["unit"]) if known else ""
    here = next((cell for cell in own if cell["line"] == (of or line)), None)
    if line == INTERVAL:
        return _interval(here) if here else ""
    if here:
        remarks = here["marks"].split(MARKS)
        marks = notes.mark([text for text in remarks if text and text not in shared])
        return f"{in_unit(here['measured'], first['unit'])} {marks}".strip()
    reasoned = (MEASURED, next(iter(table.metrics[first["metric"]].measures)))
    if not first["reason"] or line not in reasoned:
        return ""
    return f"{DASH} {notes.mark([] if first['reason'] in shared else [first['reason']])}".strip()


def _interval(cell: Cell) -> str:
    """Return an interval, an exact lower bound, or the range of several networks; or nothing."""
    lo, hi, unit = cell["lo"], cell["hi"], cell["unit"]
    if lo is None or hi is None or lo == hi:
        return ""
    if cell["interval"] == "exact":  # without a space: it is one word
        return f"(≥{in_unit(lo, unit)})"
    text = f"{in_unit(lo, unit)}{DASH}{in_unit(hi, unit)}"
    return f"({text})" if cell["interval"] == "range" else text


def _width(grid: TextTable) -> int:
    return sum(max(map(len, column)) + 3 for column in zip(grid.header, *grid.rows))


def in_unit(value: float, unit: str) -> str:
    """Return a value in percent as the print shows it.

    >>> in_unit(87.449, "percent"), in_unit(87.449, "fraction")
    ('87.4', '0.874')
    """
    return f"{value / 100:.3f}" if unit == "fraction" else percent(value)


def signed(value: float, unit: str) -> str:
    """Return a difference in percent as signed text in the unit of the print.

    >>> signed(-2.04, "percent"), signed(0.01, "percent"), signed(2.04, "fraction")
    ('−2.0', '0.0', '+0.020')
    """
    text = f"{abs(value) / 100:.3f}" if unit == "fraction" else f"{abs(value):.1f}"
    return text if float(text) == 0 else ("+" if value > 0 else "−") + text
