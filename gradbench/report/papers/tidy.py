"""A paper's table as tidy CSV: one line for each printed number and each side of its metric."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from io import StringIO

from gradbench.report.papers.fill import Filled, Filling
from gradbench.report.published import NAMING
from gradbench.run.rows import DIGITS
from gradbench.support.text import for_spreadsheet

COLUMNS = (
    *NAMING,
    *("unit", "published", "line", "measured", "lo", "hi", "networks", "difference"),
    *("run", "our_in_dist", "our_backbone", "our_width", "our_challenge", "our_level"),
    *("our_method", "our_protocol", "our_metric", "our_side", "our_threshold_rule"),
    *("supervision", "clean_seen", "n_normal", "n_abnormal", "best", "near_best", "marks"),
    "reason",
)
"""Measured values, bounds and differences are in percent, whatever the unit of the print."""


def tidy(fillings: Iterable[Filling]) -> str:
    """Return the cells of tables as CSV with LF line ends; equal cells give equal bytes."""
    text = StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for filling in fillings:
        for cell in filling.cells:
            for line in _lines(cell):
                cells = {n: "" if value is None else str(value) for n, value in line.items()}
                writer.writerow({n: for_spreadsheet(text) for n, text in cells.items()})
    return text.getvalue()


def _lines(cell: Filled) -> Iterable[dict[str, object]]:
    printed = cell.wanted.printed
    common = {name: getattr(printed, name) for name in (*NAMING, "unit")}
    common |= {"published": printed.value, "marks": "; ".join(cell.marks), "reason": cell.reason}
    if not cell.numbers:
        yield common | {"best": "published" if "published" in cell.best else ""}
        return
    for line, number in cell.numbers.items():
        row = cell.rows[line][0]
        best = [name for name in ("published", line) if name in cell.best]
        yield common | {
            "line": line,
            **{name: _text(getattr(number, name)) for name in ("lo", "hi")},
            "measured": _text(number.value),
            "networks": number.networks,
            "difference": "" if cell.difference is None else _text(cell.difference),
            "run": cell.run.path.as_posix(),
            "our_in_dist": row.in_dist,
            "our_backbone": row.backbone,
            "our_width": _text(row.width),
            "our_challenge": row.challenge,
            "our_level": row.level,
            "our_method": row.method,
            "our_protocol": row.protocol,
            "our_metric": row.metric,
            "our_side": row.side,
            "our_threshold_rule": row.threshold_rule,
            "supervision": row.supervision,
            "clean_seen": row.clean_seen,
            "n_normal": row.n_normal,
            "n_abnormal": row.n_abnormal,
            "best": " ".join(best),
            "near_best": "yes" if cell.near and line in cell.numbers else "",
        }


def _text(value: object) -> str:
    """Return a number as text, "" where it is missing."""
    if str(value) in ("nan", "<NA>", "None"):
        return ""
    return repr(round(value, DIGITS) + 0.0) if isinstance(value, float) else str(value)
