"""Which sets a figure shows, where a panel or a line for every level would be too many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradbench.run.experiment import Cell

PANELS = 20
"""More panels than this are not looked at one by one."""
LINES = 12
"""More lines than this are not told apart."""


def panels(cells: Sequence[Cell], titles: Iterable[str]) -> tuple[list[str], str]:
    """Return the titles of the sets that a figure of panels shows, and what its own title adds.

    Args:
        cells: of the experiment.
        titles: of all sets that there are, cells or not.
    """
    return _fewer(cells, list(titles), PANELS)


def lines(cells: Sequence[Cell], titles: Iterable[str]) -> tuple[list[str], str]:
    """Return the same for a figure with a line for every set."""
    return _fewer(cells, list(titles), LINES)


def _fewer(cells: Sequence[Cell], titles: list[str], most: int) -> tuple[list[str], str]:
    """Return all titles, or those of the first and last levels, or of the last levels alone.

    Sets without levels are always shown.
    """
    if len(titles) <= most:
        return titles, ""
    levels: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.level is not None and cell.title in titles:
            levels.setdefault(cell.name, []).append(cell)
    levelled = {cell.title for own in levels.values() for cell in own}
    both, last = (
        {own[place].title for own in levels.values() for place in places}
        for places in ((0, -1), (-1,))
    )
    shown, said = ([t for t in titles if t not in levelled or t in both], "first and last level")
    if len(shown) > most:
        shown, said = ([t for t in titles if t not in levelled or t in last], "last level")
    return shown, f"; {said}" if len(shown) < len(titles) else ""
