"""Which sets and detectors a figure shows, where a panel or a line for each would be too many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradbench.report.view import View
    from gradbench.run.experiment import Cell

PANELS = 20
"""More panels than this are not looked at one by one."""
LINES = 12
"""More lines than this are not told apart."""
CURVES = 8
"""More detectors than this are not told apart where their curves cross."""
BASELINE = "msp"
"""Always among the detectors that are shown."""


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


def detectors(view: View, names: Sequence[str]) -> tuple[list[str], str]:
    """Return the detectors whose curves a figure shows, and what its title adds.

    Of many, the baseline and those with the highest mean AUROC over the challenges, in the order
    given.

    Args:
        view: rows of the run.
        names: detectors as they stand in the rows.
    """
    if len(names) <= CURVES:
        return list(names), ""
    single = [line for line in view.lines() if not line.is_mean]
    means = {
        name: fmean(spread[0] for spread in found)
        for name in names
        if (found := [spread for line in single if (spread := view.spread(line, name))])
    }
    kept = [name for name in names if name == BASELINE]
    others = sorted((name for name in means if name not in kept), key=lambda name: -means[name])
    best = others[: CURVES - len(kept)]
    said = f"; {' and '.join([*kept, f'the {len(best)} best of {len(names)} on the mean'])}"
    return [name for name in names if name in kept or name in best], said


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
