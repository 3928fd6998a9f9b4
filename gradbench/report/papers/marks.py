"""What a reader must know of a measured cell besides its number."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gradbench.report.papers.chosen import narrower
from gradbench.report.papers.rules import Place
from gradbench.report.papers.runs import Run
from gradbench.run.rows import INDICATIVE

SOURCES = {
    "part": "a part of the set",
    "stand_in": "a stand-in",
    "regenerated": "brought to this shape here instead of taken from the published archive",
    "generated": "generated here instead of taken from the published archive",
}


def marks(run: Run, place: Place, row: Any, dirs: Iterable[Path] = ()) -> tuple[str, ...]:
    """Return the foot-notes of a cell.

    Args:
        run: that it was measured in.
        place: where.
        row: of the run, one of those that the cell shows.
        dirs: folders of the user's own configuration files.
    """
    found = []
    if sizes := narrower(run, dirs):
        found.append(f"{run.backbone} of {sizes}")
    found += images(run)
    if place.stand_in:
        found.append(place.stand_in)
    elif place.preferred and place.preferred != place.challenge:
        found.append(_source(run, row, f"{place.challenge} in place of {place.preferred}"))
    elif row.source in SOURCES and not (row.source == "generated" and _attack(row)):
        found.append(_source(run, row, place.challenge))
    if INDICATIVE in row.note:
        found.append(INDICATIVE)
    return tuple(found)


def _attack(row: Any) -> bool:
    """Tell whether images are made here by anyone who measures them."""
    return row.challenge_set == "adversarial"


def _source(run: Run, row: Any, what: str) -> str:
    if row.source == "generated":  # one note for all families and levels
        return f"images {SOURCES[row.source]}"
    told = [SOURCES[row.source]] if row.source in SOURCES else []
    return f"{what}: {'; '.join([*told, *run.remarks(row)])}".rstrip(": ")


def images(run: Run) -> list[str]:
    """Return what is to be known of the clean images of a run."""
    found = []
    if run.config.get("limit"):
        found.append(f"{run.about['n_clean']} clean test images of {run.in_dist}, not all of them")
    for split in ("train", f"{run.in_dist} test"):
        told = run.data.get(split, {})
        if told.get("status") in SOURCES:
            role = "trained on" if split == "train" else "clean images:"
            found.append(f"{role} {SOURCES[told['status']]} {run.in_dist}")
    return found
