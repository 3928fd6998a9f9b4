"""Numbers printed in the papers, as they were printed; README.md tells where they are from."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from gradbench.errors import GradbenchError, unknown

if TYPE_CHECKING:
    import pandas

NAMING = (
    *("table", "paper", "backbone", "in_dist", "challenge_set", "challenge", "level"),
    *("method", "variant", "metric"),
)
"""Columns that together name one number of a file."""
COLUMNS = (*NAMING, "unit", "value", "higher_is_better", "source", "note")
UNITS = ("percent", "fraction", "raw", "count", "ms")


def published_files() -> dict[str, Path]:
    """Return the files of published numbers by name, without their ending."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.csv"))}


@cache
def read_published(path: Path) -> pandas.DataFrame:
    """Return the printed numbers of a file, every column as text, in the order of the file.

    Raises:
        GradbenchError: if the file cannot be read, has other columns, holds something that is not
            a number, an unknown unit, or the same number twice.
    """
    import pandas

    try:
        with open(path, encoding="utf-8", newline="") as file:
            header, *lines = [*csv.reader(file, strict=True)] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        reason = getattr(fault, "strerror", None) or fault
        raise GradbenchError(f"cannot read {path}: {reason}") from fault
    if tuple(header) != COLUMNS:
        wrong = sorted(set(header) ^ set(COLUMNS)) or ["their order"]
        raise GradbenchError(f"{path} holds no published numbers: {', '.join(wrong)} differ")
    for place, line in enumerate(lines, 2):
        if len(line) != len(COLUMNS):
            raise GradbenchError(f"{path}, line {place}: it does not have {len(COLUMNS)} columns")
    numbers = pandas.DataFrame(lines, columns=COLUMNS, dtype=str)

    def refuse(where: pandas.Series, message: str) -> None:
        if where.any():
            first = numbers[where].iloc[0]
            what = message.format(**first.to_dict())
            raise GradbenchError(f"{path}, line {int(where.to_numpy().argmax()) + 2}: {what}")

    refuse(pandas.to_numeric(numbers["value"], errors="coerce").isna(), "'{value}' is not a number")
    wrong = ~numbers["unit"].isin(UNITS)
    refuse(wrong, str(unknown("unit", "".join(numbers["unit"][wrong].head(1)), UNITS)))
    refuse(numbers.duplicated(list(NAMING)), "the same number stands in a line before it")
    return numbers
