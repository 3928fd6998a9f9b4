"""The main table: AUROC of every detector on every challenge, and what is to be said below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gradbench.report.draft import Draft, many
from gradbench.report.grid import ALIKE, plain
from gradbench.report.section import Block
from gradbench.report.view import View
from gradbench.run.rows import INDICATIVE

WIDEST = 140
"""Characters of a line in a terminal; a table that is wider shows no intervals."""
SOURCES = {
    "part": "only a part of the set was at hand or asked for; the whole set may give other numbers",
    "stand_in": "another set, or images made like it, standing in for the one the papers used",
    "regenerated": "brought to this shape here; an archive made by others may be easier or harder",
    "generated": "made here, from the clean test images or from random numbers alone",
}
"""Foot-notes of the column `source`."""
INDICATED = ", indicative"
ALIKE_NOTE = (
    f"{ALIKE}: not distinguishable from the highest of the same challenge: the interval of their "
    "difference holds zero (rows of `auroc_difference`: paired bootstrap over source images, Holm "
    "over the comparisons with the highest of that challenge). The highest is better than all that "
    "have no mark, on other images for these networks and fitted detectors."
)
LABELS = ("challenge", "level", "n abnormal", "source")


def main(
    view: View,
    names: Sequence[str],
    about: Mapping[str, Any],
    widest: int | None = None,
) -> list[Block]:
    """Return the main table and what is to be said below it.

    Detectors are columns; where they outnumber the challenges, or were fitted on some of them, they
    are rows, and the challenges stand in a table of their own before.

    Args:
        view: rows of the run.
        names: detectors as they stand in the rows.
        about: see `table.markdown`.
        widest: characters of a line of plain text, beyond which intervals are left away.
    """
    lines = view.lines()
    if not lines:
        return ["No challenge was asked for."]
    draft = Draft(LABELS, tuple(names))
    for line in lines:
        cells = [view.cell(line, name) for name in names]
        if line.is_mean and len(view.remarks(line)) > 1:
            draft.add(_labels(view, line), cells)  # means over different challenges are not ranked
        else:
            alike = [view.alike(line, name) for name in names]
            draft.add_ranked(_labels(view, line), cells, alike)
    parts: list[Block] = []
    if many(names, lines) or any("@" in name for name in names):
        own = Draft(LABELS, (), [(labels, []) for labels, _ in draft.rows])
        parts = own.blocks()
        what = {name: about["detectors"].get(name.partition("@")[0], {}) for name in names}
        words = [(name, what[name].get("supervision", "")) for name in names]
        titles = [line.title for line in lines]
        draft = draft.turned(("detector", "supervision"), words, titles)
    drawn = draft.blocks()
    if widest and max(map(len, plain(drawn[0]).splitlines())) > widest:
        drawn = draft.bare().blocks()
    marked = [ALIKE_NOTE] if draft.alike else []
    return [*parts, *drawn, (*marked, *_footnotes(view))]


def _labels(view: View, line) -> tuple[str, ...]:
    return (
        line.challenge,
        line.level,
        view.count(line, "n_abnormal") + INDICATED * view.indicative(line),
        ", ".join(view.sources(line)),
    )


def _footnotes(view: View) -> list[str]:
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
    return notes
