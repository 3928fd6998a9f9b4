"""The lines of a benchmark as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradbench.bench.record import Line

HEADER = ("contender", "images/s", "time", "(min–max)", "MiB", "memory", "difference", "note")


def table(lines: Sequence[Line]) -> str:
    """Return the table; `time` and `memory` are ratios to the ordinary step's."""
    return aligned(HEADER, [_cells(line) for line in lines])


def aligned(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return cells in columns: the first and the last flush left, numbers between flush right."""
    widths = [max(map(len, column)) for column in zip(header, *body)]
    left = (0, len(header) - 1)
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in (header, *body)
    )


def _cells(line: Line) -> tuple[str, ...]:
    times = line.ratio
    spread = f"({times.low:.2f}–{times.high:.2f})" if times else ""
    difference = "" if line.difference is None else f"{line.difference.largest:.0e}"
    wrong = "DISAGREES with the engine; " if line.agrees is False else ""
    return (
        line.contender,
        _number(line.images_per_second),
        f"{times.median:.2f}" if times else "",
        spread,
        _number(line.memory_mib),
        "" if line.memory_ratio is None else f"{line.memory_ratio:.2f}",
        difference,
        (wrong + line.note).removesuffix("; "),
    )


def _number(value: float | None) -> str:
    """Return three digits, and all those before the point."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
