"""Sections of `table.md` that belong to a protocol, or to several networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gradbench.report.draft import Draft
from gradbench.report.section import Section
from gradbench.report.view import COLUMNS, Cell, Line, View

P_FOLDS = "p, folds"
"""Header of the t-test over folds."""
BEST, HALF = COLUMNS["accuracy, best"], COLUMNS["accuracy, 0.5"]


def matrix(view: View, names: Sequence[str]) -> Section | None:
    """Return what detectors fitted on one challenge give on every other."""
    lines = view.lines()
    titles = tuple(line.title for line in lines)
    draft = Draft(("detector",), titles)
    for name in names:
        fitted_on = name.partition("@")[2]
        if not fitted_on:
            continue
        cells = []
        for line in lines:
            cell, own = transferred(view, name, line)
            text = cell.text if view.intervals else cell.text.split(" ", 1)[0]
            cells.append(cell._replace(text=f"({text})" if own and text else text))
        draft.add((name,), cells)
    text = (
        "AUROC in percent of detectors that were fitted on the challenge after the `@`, measured "
        "on the challenges above. In parentheses: measured on other images of the very challenge, "
        "as `grouped` does. Columns of a mean stand for the others of one kind, and are empty "
        "where these are fewer than two."
    )
    return Section("Transfer", (text, *draft.blocks())) if draft.rows else None


def transferred(view: View, name: str, line: Line) -> tuple[Cell, bool]:
    """Return what `DETECTOR@CHALLENGE` gives on a challenge, and whether it is its own.

    On its own it is what `grouped` measures on other images.
    """
    own = line.title == name.partition("@")[2]
    return view.cell(line, name, protocol="grouped" if own else None), own


def article(view: View, names: Sequence[str], about: Mapping[str, Any]) -> Section | None:
    """Return detection accuracy as the article of 2023 reports it."""
    if not about["protocol"].startswith("access2023"):
        return None
    draft = Draft(("challenge", "level", "detector"), ("accuracy, 0.5", "accuracy, best", P_FOLDS))
    for line in view.lines():
        for name in names:
            cells = [view.cell(line, name, measure) for measure in (HALF, BEST)]
            of_gradients = _is_of_gradients(about["detectors"][name])
            shown = 0 if of_gradients and cells[0].value is not None else 1
            cells[1 - shown] = Cell("")
            if cells[shown].value is not None:
                draft.add((line.challenge, line.level, name), [*cells, view.p_folds(line, name)])
    text = (
        "In percent, as reported in 2023: at 0.5 for detectors fitted to gradient norms on the "
        "challenge, at the best threshold for these very images for all others, which flatters "
        f"them. {P_FOLDS}: of the corrected repeated k-fold t-test that the detector's AUROC is "
        "that of the highest on the challenge, each by itself, uncorrected for their number; no "
        "mark in the tables above goes by it."
    )
    return Section("Detection accuracy as in the article", (text, *draft.blocks()))


def _is_of_gradients(detector: Mapping[str, Any]) -> bool:
    """Tell whether a detector is one like H: fitted to gradient norms on the challenge."""
    norms = any(read.startswith("squared_norms") for read in detector["reads"])
    return norms and detector["supervision"] == "training"


def networks(view: View, names: Sequence[str]) -> Section | None:
    """Return the mean AUROC of several networks, how sure it is, and how far they lie apart."""
    draft = Draft(
        ("challenge", "level", "detector"), ("mean", "interval over images", "range over networks")
    )
    for line in view.lines():
        for name in names:
            if cells := view.networks(line, name):
                draft.add((line.challenge, line.level, name), cells)
    text = (
        "AUROC in percent. The interval speaks of other images for these networks (resamples of "
        "the source images, the same for all networks), the range of the networks for these images."
    )
    return Section("Several networks", (text, *draft.blocks())) if draft.rows else None
