"""Numbers printed in the papers, as they were printed; README.md tells where they are from."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

from gradbench.errors import GradbenchError, unknown

UNITS = ("percent", "fraction", "raw", "count", "ms")
FOLDER = Path(__file__).parent


class Printed(NamedTuple):
    """One printed number; README.md beside this file tells the meaning of the columns."""

    table: str
    paper: str
    backbone: str
    in_dist: str
    challenge_set: str
    challenge: str
    level: str
    method: str
    variant: str
    metric: str
    unit: str
    value: str
    higher_is_better: str
    source: str
    note: str

    @property
    def number(self) -> float:
        """The value as a number."""
        return float(self.value)


NAMING = Printed._fields[:10]
"""Columns that tell a number from all others of its file."""


def files() -> dict[str, Path]:
    """Return the files of published numbers by name, without their ending."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.csv"))}


@cache
def load(path: Path) -> tuple[Printed, ...]:
    """Return the numbers of a file in the order in which they stand there.

    Raises:
        GradbenchError: if the file cannot be read, has other columns, holds something that is no
            number, an unknown unit, or the same number twice.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            header, *lines = list(reader) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        reason = getattr(fault, "strerror", None) or fault
        raise GradbenchError(f"cannot read {path}: {reason}") from fault
    if tuple(header) != Printed._fields:
        wrong = sorted(set(header) ^ set(Printed._fields)) or ["their order"]
        raise GradbenchError(f"{path} holds no published numbers: {', '.join(wrong)} differ")
    found: dict[tuple, Printed] = {}
    for place, line in enumerate(lines, 2):
        if len(line) != len(header):
            raise GradbenchError(f"{path}, line {place}: {len(line)} columns, not {len(header)}")
        printed = Printed(*line)
        try:
            float(printed.value)
        except ValueError as fault:
            raise GradbenchError(f"{path}, line {place}: '{printed.value}' is no number") from fault
        if printed.unit not in UNITS:
            raise GradbenchError(f"{path}, line {place}: {unknown('unit', printed.unit, UNITS)}")
        key = printed[: len(NAMING)]
        if key in found:
            raise GradbenchError(f"{path}, line {place}: the same number as in a line before it")
        found[key] = printed
    return tuple(found.values())
