"""The report: what is known of every run, put in order for the template."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from gradbench import __version__
from gradbench.report import selection
from gradbench.report.page import words
from gradbench.report.page.costs import costs, times
from gradbench.report.page.glance import glance
from gradbench.report.page.heat import heat
from gradbench.report.page.levels import levels
from gradbench.report.page.page import environment
from gradbench.report.page.pictures import pictures
from gradbench.report.page.source import Source
from gradbench.report.papers.document import html_fragment
from gradbench.report.papers.fill import fill
from gradbench.report.papers.table import read_table, table_files
from gradbench.report.section import Section
from gradbench.report.table import detectors_table, tables
from gradbench.support.progress import Progress, step

SPACES = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Chapter:
    """A run as the template sees it.

    Attributes:
        id: of its heading, by which the contents find it.
        source: the run.
        words: its conventions, provenance and commands.
        main: the main table.
        tables: all others.
        figures: charts and pictures by kind.
        contents: id and title of every part.
    """

    id: str
    source: Source
    words: dict[str, Any]
    main: Section
    tables: list[tuple[str, Section]]
    figures: dict[str, Any]
    contents: list[tuple[str, str]]


def report(sources: Sequence[Source], command: str, dirs: Sequence[Path] = ()) -> str:
    """Return the page; equal runs give equal bytes.

    Args:
        sources: the runs, in the order in which they are shown.
        command: that makes the report again.
        dirs: folders of the user's own configuration files.

    Raises:
        GradbenchError: if a run is damaged.
    """
    chapters = []
    with Progress("chapters of the report", len(sources), "runs") as progress:
        for place, source in enumerate(sources, 1):
            chapters.append(_chapter(f"run-{place}-{_slug(source.about['experiment'])}", source))
            progress.advance(1)
    days = sorted(source.run.begun[:10] for source in sources)
    template = environment().get_template("report.html.jinja")
    with step("writing the report"):
        return template.render(
            chapters=chapters,
            days=" to ".join(dict.fromkeys((days[0], days[-1]))),
            sets=", ".join(dict.fromkeys(source.about["in_dist"] for source in sources)),
            papers=_papers(sources, dirs),
            command=command,
            version=__version__,
        ) + "\n"  # fmt: skip


def _chapter(ident: str, source: Source) -> Chapter:
    view = source.view
    names = view.methods(source.about["detectors"])
    taken, untimed = times(source)
    told_apart, of = selection.detectors(view, [name for name in names if "@" not in name])
    drawn = pictures(source.run, len(source.seeds) > 1)
    figures = {
        "levels": levels(view, told_apart),
        "heat": heat(view, names),
        "costs": costs(source, taken, told_apart),
        "roc": [one for one in drawn if one.kind == "roc"],
        "scores": [one for one in drawn if one.kind == "scores"],
        "profile": [one for one in drawn if one.kind == "gradient_profile"],
    }
    main, *others = tables(view, source.about)
    parts = [(f"{ident}-{_slug(section.title)}", section) for section in others]
    titles = {
        "levels": "AUROC against level",
        "heat": "Transfer matrix",
        "costs": "Cost against AUROC",
        "roc": "ROC curves",
        "scores": "Histograms of scores",
        "profile": "Gradient profile",
    }
    contents = [
        (f"{ident}-conventions", "Conventions"),
        (f"{ident}-auroc", "AUROC"),
        *((f"{ident}-figure-{kind}", titles[kind]) for kind in figures if figures[kind]),
        *((place, section.title) for place, section in parts),
        (f"{ident}-provenance", "Provenance"),
        (f"{ident}-repeat", "How to repeat it"),
    ]
    told = {
        "conventions": words.conventions(source),
        "detectors": detectors_table(source.about),
        "glance": glance(view, names),
        "measured": words.measured(source),
        "challenges": words.challenges(source),
        "holes": words.holes(source),
        "facts": words.facts(source),
        "data": words.data_table(source),
        "networks": words.networks_table(source),
        "configuration": words.configuration(source),
        "repeat": words.repeat(source),
        "untimed": untimed,
        "told_apart": of.removeprefix("; "),
    }
    return Chapter(ident, source, told, main, parts, figures, contents)


def _papers(sources: Sequence[Source], dirs: Sequence[Path]) -> list[tuple[str, str, Markup]]:
    """Return id, title and HTML of the papers' tables of which the runs fill a cell or more."""
    found = []
    runs = [source.run for source in sources]
    for name in table_files(dirs):
        filled = fill(read_table(name, dirs), runs, dirs)
        if filled.runs:
            found.append((f"table-{name}", filled.table.title, Markup(html_fragment(filled, 3))))
    return found


def _slug(text: str) -> str:
    return SPACES.sub("-", text.lower()).strip("-")
