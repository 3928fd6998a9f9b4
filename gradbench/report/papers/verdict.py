"""How a table measured here compares with the printed one: counted, not judged by intervals."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations

from gradbench.report.papers.fill import Filled, Filling
from gradbench.report.papers.layout import heads
from gradbench.report.papers.spec import Table
from gradbench.report.published import Printed

NEAR = (1, 5)
"""Points within which a measured value is counted as near the published one."""
NAMED = 6
"""Places that are named of each pair of methods; more are counted."""


@dataclass(frozen=True)
class Verdict:
    """Counts over the cells of a table.

    Attributes:
        cells: printed numbers.
        measured: those with a measured number.
        marked: those of them with a foot-note.
        compared: those of them whose difference is known.
        within: points -> how many of those differ by no more.
        pairs: groups in which two methods were compared with each other.
        differ: (above in print, above here) -> where.
    """

    cells: int
    measured: int
    marked: int
    compared: int
    within: dict[int, int]
    pairs: int
    differ: dict[tuple[str, str], list[str]]

    def sentences(self) -> list[str]:
        """Return the verdict in words."""
        if not self.measured:
            return [f"None of {self.cells} cells measured."]
        said = [
            f"{self.measured} of {self.cells} cells measured, {self.marked} of them with a mark "
            "(stand-in, part, other size: see the notes)."
        ]
        if self.compared:
            near = " and ".join(f"{self.within[n]} within {n} point{'s' * (n > 1)}" for n in NEAR)
            said.append(f"Of {self.compared} differences, {near} of the published value.")
        if self.pairs:
            count = sum(map(len, self.differ.values()))
            said.append(
                f"The order of two methods differs from the print in {count} of {self.pairs} "
                f"comparisons{':' if count else '.'}"
            )
            for (printed, here), places in self.differ.items():
                named = ", ".join(places[:NAMED])
                more = f" and {len(places) - NAMED} more" if len(places) > NAMED else ""
                said.append(f"{here} above {printed} here, below it in print: {named}{more}.")
        return said


def verdict(filling: Filling) -> Verdict:
    """Count the cells of a table.

    Methods are ranked within each group by the values of both sides; where either side is equal,
    the order does not differ. Metrics without a difference are not ranked.
    """
    measured = [cell for cell in filling.cells if cell.numbers]
    differences = [cell.difference for cell in measured if cell.difference is not None]
    pairs, differ = 0, defaultdict(list)
    for group in filling.groups:
        for a, b in combinations([cell for cell in group if _ranked(cell)], 2):
            pairs += 1
            printed, here = (_above(a, b, value) for value in (_printed, _measured))
            if printed * here < 0:
                first, second = (a, b) if printed > 0 else (b, a)
                names = _method(filling.table, first), _method(filling.table, second)
                differ[names].append(where(filling.table, first))
    return Verdict(
        cells=len(filling.cells),
        measured=len(measured),
        marked=sum(bool(cell.marks) for cell in measured),
        compared=len(differences),
        within={n: sum(abs(d) <= n for d in differences) for n in NEAR},
        pairs=pairs,
        differ=dict(differ),
    )


def where(table: Table, cell: Filled) -> str:
    """Return the group of a cell in words: what differs within its table."""
    columns = [c for part in ("panels", "rows", "columns") for c in table.layout[part]]
    varied = [
        c
        for c in columns
        if c not in table.compare and len({getattr(one.printed, c) for one in table.wanted}) > 1
    ]
    return " ".join(filter(None, heads(table, cell.wanted.printed, varied)))


def _ranked(cell: Filled) -> bool:
    return bool(cell.numbers) and cell.wanted.metric.difference


def _printed(cell: Filled) -> float:
    return cell.wanted.printed.number


def _measured(cell: Filled) -> float:
    (number,) = cell.numbers.values()
    return round(number.value, 6)


def _above(a: Filled, b: Filled, value) -> int:
    sign = 1 if a.wanted.printed.higher_is_better == "1" else -1
    return sign * ((value(a) > value(b)) - (value(a) < value(b)))


def _method(table: Table, cell: Filled) -> str:
    printed: Printed = cell.wanted.printed
    return " ".join(filter(None, (getattr(printed, column) for column in table.compare)))
