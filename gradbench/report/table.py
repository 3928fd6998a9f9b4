"""The tables of one run: `table.md`, and the short form for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from gradbench.protocols.base import Grouped
from gradbench.report import across, grid, sections
from gradbench.report.grid import Grid
from gradbench.report.main_table import WIDEST, main
from gradbench.report.numbers import accuracies
from gradbench.report.section import Block, Section, texts
from gradbench.report.view import View

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
            `n_accuracy` (images that it is of), `n_clean`, `hold_out` (what is known of it),
            `protocol`, `told` (how a value comes about), `detectors` (name ->
            `supervision`, `clean_seen`, `reads`, `passes`), `left_out` (name -> `supervision`),
            `refused` (name of a detector that could not be measured at all -> why),
            `remark` (a sentence for the head, or empty) and `command`.
    """
    view = View(frame, about["protocol"])
    parts = [f"# {about['experiment']}", *texts(head(view, about), grid.markdown)]
    for section in tables(view, about):
        parts += [f"## {section.title}", *texts(section.blocks, grid.markdown)]
    return "\n\n".join(parts) + "\n"


def head(view: View, about: Mapping[str, Any]) -> list[Block]:
    """Return what stands above the tables of a run: conventions, and what each detector saw."""
    return [about["remark"], _conventions(view, about), detectors_table(about)]


def tables(view: View, about: Mapping[str, Any]) -> list[Section]:
    """Return the tables of a run, the main one first; arguments as `markdown`."""
    detectors = list(about["detectors"])
    names = view.methods(detectors)
    spread = f"In percent; {_spread(about)}. Bold: the highest on a challenge."
    found = [
        Section("AUROC", (spread, *main(view, names, about))),
        across.matrix(view, names),
        across.article(view, names, about),
        across.networks(view, names),
        sections.measures(view, names),
        sections.attacks(view),
        sections.controls(view, detectors),
        sections.leak(view, detectors),
    ]
    return [section for section in found if section is not None]


def terminal(frame: pd.DataFrame, about: Mapping[str, Any]) -> str:
    """Return the main table as aligned plain text, without a line end; arguments as `markdown`."""
    view = View(frame, about["protocol"])
    said = [
        f"{about['experiment']}: {about['in_dist']} in; {_network(about)}",
        about["remark"],
        _left_out(about),
        *refused(about),
        f"AUROC in percent; {_spread(about)}; * the highest on a challenge.",
    ]
    blocks = main(view, view.methods(about["detectors"]), about, WIDEST)
    return "\n\n".join(["\n".join(filter(None, said)), *texts(blocks, grid.plain)])


def _conventions(view: View, about: Mapping[str, Any]) -> tuple[str, ...]:
    counts = dict.fromkeys(n for line in view.lines() if (n := view.count(line, "n_normal")))
    several = len(about["accuracy"]) > 1
    seeds = ", ".join(map(str, about["accuracy"]))
    lines = [
        f"Normal images: {about['in_dist']}, {' or '.join(counts) or about['n_clean']} test "
        "images measured.",
        f"Network f: {_network(about)} (seed{'s' * several} {seeds}).",
        f"Protocol: `{about['protocol']}`. {about.get('told') or Grouped().explanation}",
        _left_out(about),
        f"Hold-out: {about['hold_out']}." if about.get("hold_out") else "",
        *refused(about),
        *(f"In the place of gradbench's own: {one}." for one in about.get("shadows") or ()),
        "Score: higher = more abnormal. Abnormal images are the positive class.",
        f"Command: `{about['command']}`",
    ]
    return tuple(line for line in lines if line)


def _left_out(about: Mapping[str, Any]) -> str:
    """Return which detectors the protocol does not measure."""
    left = about.get("left_out") or {}
    names = ", ".join(f"{name} ({supervision})" for name, supervision in left.items())
    return f"Left out, for they see challenges: {names}." if left else ""


def refused(about: Mapping[str, Any]) -> list[str]:
    """Return why detectors could not be measured at all, a sentence each."""
    return [f"Left out: {reason}." for reason in (about.get("refused") or {}).values()]


def _network(about: Mapping[str, Any]) -> str:
    width = f" of width {about['width']}" if about["width"] else ""
    return f"{about['backbone']}{width}, test accuracy {accuracies(about)}"


def detectors_table(about: Mapping[str, Any]) -> Grid:
    """Return what each detector reads, needs and sees."""
    header = ("detector", "reads", "passes of an image", "supervision", "sees of the challenge",
              "sees of clean images")  # fmt: skip
    rows = []
    for name, what in about["detectors"].items():
        reads = what["reads"] if isinstance(what["reads"], str) else ", ".join(what["reads"])
        supervision = what["supervision"]
        passes = what.get("passes", "")
        words = (name, reads, passes, supervision, SUPERVISION[supervision], what["clean_seen"])
        rows.append(words)
    return Grid(header, tuple(rows), labels=len(header)).without_empty_columns()


def _spread(about: Mapping[str, Any]) -> str:
    networks = len(about["accuracy"])
    if networks > 1:
        return f"mean of {networks} networks with their range in parentheses"
    return "with interval, or with the exact lower bound (≥) where hardly an image is mistaken"
