"""Whether the numbers of tables that were written to files are those of print and runs."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from math import isclose
from pathlib import Path

from gradbench.errors import GradbenchError
from gradbench.report import published
from gradbench.report.papers.layout import DIFFERENCE, PUBLISHED, heads, joined
from gradbench.report.papers.measures import points
from gradbench.report.papers.spec import Table, read_table
from gradbench.report.papers.tidy import COLUMNS
from gradbench.report.published import NAMING, Printed
from gradbench.run.rows import read_csv, rows_file
from gradbench.support.text import from_spreadsheet

NUMBER = re.compile(r"[+−]?\d+(?:\.\d+)?")
TITLE = re.compile(r"^# (\w+): ")
Line = Mapping[str, str]
"""A line of the tidy CSV."""


def is_table(path: Path) -> bool:
    """Tell whether a file is a table that `gradbench tables format=csv` wrote."""
    with open(path, encoding="utf-8", newline="") as file:
        return tuple(next(csv.reader(file), ())) == COLUMNS


def check(path: Path, root: Path) -> tuple[int, list[str]]:
    """Compare a tidy CSV with the published numbers and the rows of the runs that it names.

    A Markdown file of the same name beside it is compared with the CSV, cell by cell.

    Args:
        path: of the CSV.
        root: folder from which the paths of the runs go.

    Returns:
        How many numbers were compared, and a sentence for each that is wrong.
    """
    with open(path, encoding="utf-8", newline="") as file:
        lines = [
            {name: from_spreadsheet(cell or "") for name, cell in line.items()}
            for line in csv.DictReader(file)
        ]
    printed = {n[: len(NAMING)]: n for f in published.files().values() for n in published.load(f)}
    count, faults = 0, []
    for line in lines:
        one = printed.get(tuple(line[name] for name in NAMING))
        where = f"{path.name}, {line['challenge']}, {line['method']}, {line['metric']}"
        count += 1
        if one is None or one.value != line["published"]:
            faults.append(f"{where}: {line['published']} was not published")
        elif line["measured"]:
            for name, right in _expected(line, one, root).items():
                count += bool(line[name])
                if not _same(line[name], right):
                    faults.append(f"{where}: {name} {line[name]} is not in {line['run']}")
    beside = path.with_suffix(".md")
    if beside.is_file():
        compared, wrong = _markdown(beside, lines)
        count, faults = count + compared, faults + wrong
    return count, faults


def _expected(line: Line, one: Printed, root: Path) -> dict[str, float | None]:
    """Return what a run's rows say of a cell; None for what must be empty."""
    columns = ("in_dist", "backbone", "challenge", "level", "method", "protocol", "metric", "side")
    try:
        rows = _rows(root / line["run"])
    except GradbenchError:
        return dict.fromkeys(("measured", "lo", "hi"), float("nan"))
    kept = rows[rows["threshold_rule"] == line["our_threshold_rule"]]
    for name in columns:
        kept = kept[kept[name] == line[f"our_{name}"]]
    values = kept["value"].dropna()
    if values.empty:
        return {"measured": float("nan")}
    alone = len(values) == 1
    lo, hi = (kept["lo"].iloc[0], kept["hi"].iloc[0]) if alone else (values.min(), values.max())
    known = {"measured": values.mean(), "lo": lo, "hi": hi}
    if line["difference"]:
        known["difference"] = values.mean() - points(one.number, one.unit)
    return {name: None if value != value else float(value) for name, value in known.items()}


@cache
def _rows(folder: Path):
    rows = read_csv(rows_file(folder))
    return rows[(rows["fold"] == "all") & rows["challenge_set"].ne("control")]


def _same(text: str, value: float | None) -> bool:
    if value is None or not text:
        return value is None and not text
    return isclose(float(text), value, abs_tol=2e-6)


def _markdown(path: Path, lines: Sequence[Line]) -> tuple[int, list[str]]:
    """Compare the numbers of a Markdown file with those of the CSV."""
    text = path.read_text(encoding="utf-8")
    title = TITLE.match(text)
    if not title:
        return 0, [f"{path.name}: its first line does not name the table"]
    table = read_table(title[1])
    known: dict[tuple, list[Line]] = {}
    for line in lines:
        known.setdefault(_place(table, line), []).append(line)
    count, faults = 0, []
    for place, kind, cell in _cells(table, text):
        shown = NUMBER.findall(cell)
        count += len(shown)
        right = _numbers(known.get(place, []), kind)
        faults += [
            f"{path.name}: {number} ({', '.join(filter(None, (*place[1], place[2])))}, {kind}) is "
            f"not in {path.with_suffix('.csv').name}"
            for number in shown
            if not any(_rounds(number, value) for value in right)
        ]
    return count, faults


def _place(table: Table, line: Line) -> tuple[str, tuple[str, ...], str]:
    one = Printed(**{name: line.get(name, "") for name in Printed._fields})
    layout = table.layout
    columns = joined(table, one, layout["columns"])
    return joined(table, one, layout["panels"]), heads(table, one, layout["rows"]), columns


def _cells(table: Table, text: str) -> Iterator[tuple[tuple, str, str]]:
    """Yield the place, the name of the line and the text of every cell of a Markdown file."""
    labels = len(table.layout["rows"])
    panel, header, words = "", [], [""] * labels
    for line in text.splitlines():
        if line.startswith("## "):
            panel, header = line[3:], []
        if not line.startswith("|"):
            continue
        cells = [c.strip().replace("\\|", "|") for c in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not header:
            header, words = cells, [""] * labels
        elif not set("".join(cells)) <= set("-: "):
            words = [new or old for new, old in zip(cells, words)]
            for column, cell in zip(header[labels + 1 :], cells[labels + 1 :]):
                yield (panel, tuple(words), column), cells[labels], cell


def _numbers(lines: Sequence[Line], kind: str) -> list[float]:
    """Return the numbers that a cell may show, in the unit of the print."""
    if kind == PUBLISHED:
        return [float(line["published"]) for line in lines]
    names = ("difference",) if kind == DIFFERENCE else ("measured", "lo", "hi")
    share = 100 if lines and lines[0]["unit"] == "fraction" else 1
    lines = [line for line in lines if kind in (line["line"], DIFFERENCE)]
    return [float(line[name]) / share for line in lines for name in names if line[name]]


def _rounds(shown: str, value: float) -> bool:
    """Tell whether a text is the rounding of a number."""
    text = shown.replace("−", "-").lstrip("+")
    half = 0.5 * 10.0 ** -len(text.partition(".")[2])
    return abs(float(text) - value) <= half + 1e-6
