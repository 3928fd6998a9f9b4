"""The tables of one run: `table.md`, and the short form for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from gradbench.evaluation.rows import INDICATIVE
from gradbench.reporting import grid, sections
from gradbench.reporting.draft import Draft
from gradbench.reporting.grid import Grid
from gradbench.reporting.numbers import number
from gradbench.reporting.view import View

SOURCES = {
    "part": "only a part of the set of that name was at hand; the whole set may give other numbers",
    "stand_in": "another set, standing in for the one the papers used",
    "regenerated": "brought to this shape here; an archive made by others may be easier or harder",
    "generated": "made here, from the clean test images or from random numbers alone",
}
"""Foot-notes of the column `source`."""
INDICATED = ", indicative"
SUPERVISION = {
    "none": "nothing",
    "synthetic": "nothing; it makes challenges of its own from clean images",
    "tuning": "images of the challenge, to choose settings",
    "training": "images of the challenge, to fit weights",
}


def markdown(frame: pd.DataFrame, about: Mapping[str, Any]) -> str:
    """Return `table.md` of a run; equal rows give equal bytes.

    Args:
        frame: rows of the run as `evaluation.rows.frame` gives them, values in percent.
        about: `experiment`, `in_dist`, `backbone`, `width`, `accuracy` (fraction by seed),
            `n_clean`, `protocol`, `detectors` (name -> `supervision`, `clean_seen`, `reads`),
            `remark` (a sentence for the head, or empty) and `command`.
    """
    view, names = View(frame, about["protocol"]), list(about["detectors"])
    parts = [
        f"# {about['experiment']}",
        about["remark"],
        _conventions(view, about),
        grid.markdown(_detectors(about)),
        "## AUROC",
        f"In percent; {_spread(about)}. Bold: the highest of a row.",
        *_main(view, names, grid.markdown),
        *sections.measures(view, names),
        *sections.attacks(view),
        *sections.controls(view, names),
        *sections.leak(view, names),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def terminal(frame: pd.DataFrame, about: Mapping[str, Any]) -> str:
    """Return the main table as aligned plain text, without a line end; arguments as `markdown`."""
    view = View(frame, about["protocol"])
    head = [
        f"{about['experiment']}: {about['in_dist']} in; {_network(about)}",
        about["remark"],
        f"AUROC in percent; {_spread(about)}; * the highest of a row.",
    ]
    table = _main(view, list(about["detectors"]), grid.plain)
    return "\n\n".join(part for part in ("\n".join(filter(None, head)), *table) if part)


def _conventions(view: View, about: Mapping[str, Any]) -> str:
    counts = dict.fromkeys(n for line in view.lines() if (n := view.count(line, "n_normal")))
    several = len(about["accuracy"]) > 1
    seeds = ", ".join(map(str, about["accuracy"]))
    lines = [
        f"Normal images: {about['in_dist']}, {' or '.join(counts) or about['n_clean']} test "
        "images measured.",
        f"Network f: {_network(about)} (seed{'s' * several} {seeds}).",
        f"Protocol: `{about['protocol']}`. A value is the mean over its folds; every image is "
        "measured once, and all detectors on the same images.",
        "Score: higher = more abnormal. Abnormal images are the positive class.",
        f"Command: `{about['command']}`",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _network(about: Mapping[str, Any]) -> str:
    accuracy = ", ".join(number(100 * value) for value in about["accuracy"].values())
    width = f" of width {about['width']}" if about["width"] else ""
    return f"{about['backbone']}{width}, test accuracy {accuracy} %"


def _detectors(about: Mapping[str, Any]) -> Grid:
    header = ("detector", "reads", "supervision", "sees of the challenge", "sees of clean images")
    rows = []
    for name, what in about["detectors"].items():
        reads = what["reads"] if isinstance(what["reads"], str) else ", ".join(what["reads"])
        supervision = what["supervision"]
        rows.append((name, reads, supervision, SUPERVISION[supervision], what["clean_seen"]))
    return Grid(header, tuple(rows), labels=len(header))


def _spread(about: Mapping[str, Any]) -> str:
    networks = len(about["accuracy"])
    if networks > 1:
        return f"mean of {networks} networks with their range in parentheses"
    return "with interval, or with the exact lower bound (≥) where hardly an image is mistaken"


def _main(view: View, names: list[str], render: Callable[[Grid], str]) -> list[str]:
    """Return the main table and what is to be said below it."""
    if not view.lines():
        return ["No challenge was asked for."]
    draft = Draft(("challenge", "level", "n abnormal", "source"), tuple(names))
    for line in view.lines():
        labels = (
            line.challenge,
            line.level,
            view.count(line, "n_abnormal") + INDICATED * view.indicative(line),
            ", ".join(view.sources(line)),
        )
        draft.add_ranked(labels, [view.cell(line, name) for name in names])
    return [*draft.draw(render), _footnotes(view)]


def _footnotes(view: View) -> str:
    """Return what the words of the column `source` mean, and the notes on the images."""
    found = {word for line in view.lines() for word in view.sources(line)}
    notes = [f"{word}: {text}." for word, text in SOURCES.items() if word in found]
    if any(view.indicative(line) for line in view.lines()):
        notes.append(f"{INDICATIVE}; small differences may be chance.")
    alike: dict[str, dict[str, None]] = {}
    for line in view.lines():
        if remarks := view.remarks(line):
            alike.setdefault("; ".join(remarks), {})[line.challenge] = None
    notes += [f"{', '.join(names)}: {remark}." for remark, names in alike.items()]
    return "\n".join(f"- {note}" for note in notes)
