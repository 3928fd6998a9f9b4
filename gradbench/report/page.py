"""Finished runs as one HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from gradbench import __version__
from gradbench.errors import GradbenchError
from gradbench.report import figures, run_tables
from gradbench.report.costs import read_milliseconds
from gradbench.report.finished_run import FinishedRun, find_runs, missing_files, sweep_runs
from gradbench.report.highlights import highlights
from gradbench.report.numbers import DASH, accuracies
from gradbench.report.papers.document import html_fragment
from gradbench.report.papers.fill import fill, is_wanted
from gradbench.report.papers.table import read_table, table_files
from gradbench.report.run_rows import NOT_MEASURED, RunRows, best_detectors
from gradbench.report.table import TextTable, html, html_list, html_text
from gradbench.run.rows import NO_LEVEL
from gradbench.support.progress import Progress, step

COLOURS = 128
"""Colours of a picture in the page: enough for lines and their soft edges, a third of its bytes."""
CURVES, BASELINE = 8, "msp"
"""Detectors that are told apart where curves cross, and the one that is always among them."""
PANELS = 6
"""Challenges drawn one by one where there is no mean of them."""
SEED = re.compile(r"_s(\d+)$")
DRAWN = {
    "roc": "ROC curves",
    "scores": "Histograms of scores",
    "gradient_profile": "Gradient profile",
}
"""Titles of the pictures that runs draw."""


class Picture(NamedTuple):
    """A picture: its data, its size in pixels, and words for those who do not see it."""

    uri: str
    width: int
    height: int
    alt: str


class Figure(NamedTuple):
    """One or more pictures with a caption; the template adds what is the same for every run."""

    kind: str
    title: str
    text: str
    pictures: list[Picture]


def report(runs: Sequence[FinishedRun], command: str, dirs: Sequence[Path] = ()) -> str:
    """Return the page of some runs in their order; equal runs give equal bytes.

    `command` makes the report again; `dirs` are folders of the user's own configuration files.

    Raises:
        GradbenchError: if a run is damaged.
    """
    chapters = []
    with Progress("chapters of the report", len(runs), "runs") as progress:
        for place, run in enumerate(runs, 1):
            chapters.append(Chapter(f"run-{place}-{_slug(run.name)}", run, dirs))
            progress.advance(1)
    papers = []
    for name in table_files(dirs):
        table = read_table(name, dirs)
        if not any(is_wanted(run, table) for run in runs):
            continue
        filled = fill(table, runs, dirs)
        if filled.runs:
            part = Markup(html_fragment(filled, 3))
            papers.append((f"table-{name}", table.title, part))
    days = sorted(run.begun[:10] for run in runs)
    with step("writing the report"):
        return _template("report").render(
            chapters=chapters,
            days=" to ".join(dict.fromkeys((days[0], days[-1]))),
            sets=", ".join(dict.fromkeys(run.in_dist for run in runs)),
            papers=papers,
            command=command,
            version=__version__,
        ) + "\n"  # fmt: skip


def page(title: str, body: str) -> str:
    """Return a whole page around the HTML of a body."""
    return _template("plain").render(title=title, body=Markup(body)) + "\n"


def _template(name: str) -> Any:
    environment = Environment(
        loader=PackageLoader("gradbench.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    style = files("gradbench.report") / "templates" / "style.css"
    environment.globals["style"] = Markup(style.read_text(encoding="utf-8"))
    environment.filters["prose"] = lambda text: Markup(html_text(text))
    environment.filters["notes"] = lambda lines, kind="notes": Markup(html_list(lines, kind))
    return environment.get_template(f"{name}.html.jinja")


class Chapter:
    """A run as the template shows it.

    Args:
        id: of its heading, by which the contents find it.
        run: its folder, opened.
        dirs: folders of the user's own configuration files.
    """

    def __init__(self, id: str, run: FinishedRun, dirs: Sequence[Path] = ()):
        self.id, self.run, self.about = id, run, run.about
        self.rows = RunRows(run.frame, run.protocol, intervals=True)
        self.lines, self.names = self.rows.lines(), self.rows.methods(self.about["detectors"])
        seeds = list(self.about["accuracy"])
        self.several = len(seeds) > 1
        width = f", width {self.about['width']}" if self.about["width"] else ""
        self.network = f"{run.backbone}{width}, seed{'s' * self.several} {', '.join(seeds)}"
        self.folder = run.path.name if run.path.name != run.name else ""
        # Captions name network and folder, so that no two runs are mistaken for each other.
        self.title = ", ".join(filter(None, [f"{run.name} ({self.network})", self.folder]))
        self.accuracy = accuracies(self.about)
        sizes = run.narrower(dirs)
        self.marks = [f"{run.backbone} of {sizes}, as configured"] if sizes else []
        self.marks += run.image_notes()
        cells = [self.rows.cell(line, name) for line in self.lines for name in self.names]
        holes = sum(bool(cell.reason) for cell in cells)
        self.measured = f"{sum(c.value is not None for c in cells)}{f', {holes} not' * bool(holes)}"
        self.challenges = ", ".join(dict.fromkeys(x.challenge for x in self.lines if not x.is_mean))
        self.highlights = highlights(self.rows, self.names)
        self.conventions = self._conventions()
        saw = run_tables.detectors_table(self.about)
        self.detectors = self._html(saw, "Who saw what: the detectors of")
        self.sections = self._sections()
        self.figures = [figure for figure in self._figures() if figure.pictures]
        self.root = (run.config.get("data") or {}).get("root")
        self.configuration = yaml.safe_dump(
            run.config, sort_keys=False, allow_unicode=True, width=100
        )

    def _conventions(self) -> list[str]:
        """Return what the numbers of the run mean, a sentence each."""
        counts: dict[str, list[str]] = {}
        for line in self.lines:
            pair = [self.rows.count(line, name) for name in ("n_normal", "n_abnormal")]
            if all(pair) and not line.is_mean:
                counts.setdefault(" : ".join(pair), []).append(line.title)
        shares = [
            f"{pair} ({', '.join(names) if len(names) <= 4 else f'{len(names)} cells'})"
            for pair, names in counts.items()
        ]
        share = self.run.config["evaluation"].get("confidence")
        interval = (
            "In parentheses the range of the networks: it speaks of other networks, on these images"
            if self.several
            else f"The {f'{100 * share:g} % ' if share else ''}interval behind a value (from{DASH}"
            "to, or ≥ for an exact lower bound) speaks of other images for this network and these "
            "fitted detectors, not of another network"
        )
        return [
            *run_tables.conventions(self.rows, self.about),
            *([f"Marked: {'; '.join(self.marks)}."] if self.marks else []),
            f"Normal : abnormal images measured: {'; '.join(shares) or 'none'}.",
            f"{interval}.",
        ]

    def _sections(self) -> list[tuple[str, str, Markup]]:
        """Return id, title and HTML of every table, the main one first."""
        sections: list[list] = []
        for table in run_tables.tables(self.rows, self.about):
            if table.title:
                sections.append([f"{self.id}-{_slug(table.title)}", table.title, Markup()])
            title = sections[-1][1]
            caption = "AUROC in percent," if title == "AUROC" else f"{title},"
            caption += "" if table.title else ", continued:"
            parts = [Markup(f"<p>{html_text(table.text)}</p>\n" if table.text else "")]
            parts += [self._html(table, caption)] if table.header else []
            parts += [Markup(html_list(table.reasons) + html_list(table.notes))]
            sections[-1][2] += Markup().join(parts)
        return [tuple(section) for section in sections]

    def _html(self, table: TextTable, caption: str) -> Markup:
        return Markup(html(table, f"{caption} {self.title}"))

    @property
    def not_measured(self) -> list[str]:
        """The reasons why challenges or detectors were not measured, each once."""
        frame = self.run.frame
        reasons: dict[str, dict[str, None]] = {}
        for row in frame[frame["note"].str.startswith(NOT_MEASURED)].itertuples(index=False):
            level = "" if row.level == NO_LEVEL else row.level
            words = (row.challenge, level, row.method and f"by {row.method}")
            name = " ".join(filter(None, words))
            reasons.setdefault(row.note.removeprefix(NOT_MEASURED), {})[name] = None
        return [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]

    def _figures(self) -> list[Figure]:
        """Return the figures: those drawn from the rows, then those that the run drew."""
        rows, frame, hardware = self.rows, self.run.frame, self.run.record["hardware"]
        spread = "the range of the networks" if self.several else "intervals"
        plain = [name for name in self.names if name not in rows.transferred()]
        named, which = best_detectors(rows, plain, CURVES, BASELINE)
        which = f" Drawn: {which}." if which else ""

        title = "AUROC by level"
        alt = f"{title} of each challenge, a line for each detector of {self.title}"
        picture = _drawn(figures.levels, alt, title, frame[frame["method"].isin(named)])
        drawn = [Figure("levels", title, f"Bands are {spread}.{which}", picture)]

        maps = []
        for detector in self.about["detectors"]:
            title = f"Transfer of {detector}: AUROC in percent"
            alt = f"Transfer matrix of {detector}, {self.title}; its numbers: table Transfer"
            if matrix := self._transfer_of(detector):
                maps += _drawn(figures.heat_map, alt, title, *matrix)
        drawn.append(Figure("heat", "Transfer matrix", "", maps))

        title = "Cost against AUROC"
        points, untimed = self._cost_points(named)
        text = (
            f"They were taken on {hardware.get('device') or 'an unknown device'} "
            f"({hardware.get('processor') or 'unknown processor'}). Bars are {spread}."
        )
        if untimed:
            text += f" Not drawn, for their passes were not timed: {', '.join(untimed)}."
        text += which.replace("Drawn", "Named")
        alt = f"AUROC against milliseconds per image of each detector of {self.title}"
        charts = _drawn(figures.costs, alt, title, points) if points else []
        drawn.append(Figure("costs", title, text, charts))

        pictures: dict[str, list[Picture]] = {kind: [] for kind in DRAWN}
        for path in sorted((self.run.path / "figures").glob("*.png")):
            at = SEED.search(path.stem) if self.several else None
            stem = path.stem[: at.start()] if at else path.stem
            kind, _, of = stem.partition("_") if stem.startswith("scores_") else (stem, "", "")
            if kind in DRAWN and self.run.has(f"figures/{path.name}"):
                of = f" of {of}" if of else ""
                seed = f", network of seed {at[1]}" if at else ""
                alt = f"{DRAWN[kind]}{of}, {self.run.in_dist} as normal images{seed}"
                pictures[kind] += _pictures(self.run.file(f"figures/{path.name}"), alt)
        return drawn + [Figure(kind, title, "", pictures[kind]) for kind, title in DRAWN.items()]

    def _transfer_of(self, detector: str) -> tuple[pd.DataFrame, pd.DataFrame] | None:
        """Return AUROC of a detector by the challenges it was fitted and measured on.

        The second table tells where both are the same challenge.
        """
        prefix = f"{detector}@"
        names = [n for n in self.names if n in self.rows.transferred() and n.startswith(prefix)]
        if not names:
            return None
        cells = pd.DataFrame(
            [[run_tables.transfer_cell(self.rows, n, line) for line in self.lines] for n in names],
            [name.removeprefix(prefix) for name in names],
            [line.title for line in self.lines],
        )
        value = cells.map(lambda one: float("nan") if one[0].value is None else one[0].value)
        return value, cells.map(lambda one: one[1])

    def _cost_points(self, named: Sequence[str]) -> tuple[dict[str, pd.DataFrame], list[str]]:
        """Return time and AUROC of each detector by challenge, and those that were not timed."""
        there = self.run.has("costs.csv")
        times = read_milliseconds(self.run.file("costs.csv")) if there else {}
        means = {line.kind for line in self.lines if line.is_mean}
        single = [line for line in self.lines if line.kind not in means]
        shown = [line for line in self.lines if line.is_mean]
        points = {}
        for line in [*shown, *(single if len(single) <= PANELS else [])]:
            cells = {name: self.rows.cell(line, name) for name in times}
            entries = {
                name: (times[name], cell.value, cell.low, cell.high, name in named)
                for name, cell in cells.items()
                if cell.value is not None
            }
            if len(entries) > 1:
                columns = ["ms", "auroc", "low", "high", "named"]
                points[line.title] = pd.DataFrame.from_dict(entries, "index", columns=columns)
        return points, [name for name in self.about["detectors"] if name not in times]


def open_runs(paths: Sequence[Path]) -> list[FinishedRun]:
    """Return the runs in these very folders, each once; the folder of a sweep stands for its runs.

    Raises:
        GradbenchError: for a folder that is not there, holds no run, or only a part of one.
    """
    every = (run for path in paths for run in sweep_runs(path) or [path])
    there = {os.path.realpath(path): path for path in every}
    for path in there.values():
        if not os.path.isdir(path):
            raise GradbenchError(f"{path}: there is no such folder, nor a run named so in outputs/")
        missing = missing_files(path)
        if len(missing) == 1:
            raise GradbenchError(
                f"the run in {path} is only half-written ({missing[0]} missing): the command that "
                "made it goes on from where it stopped"
            )
        if missing:
            inside = len(find_runs([path]))
            below = f"results={path} takes the {inside} below it"
            hint = below if inside else "name one that `run` wrote"
            raise GradbenchError(f"{path} is no folder of a run: {hint}")
    return [FinishedRun(path) for path in there.values()]


def runs_below(folders: Sequence[Path]) -> list[FinishedRun]:
    """Return the finished runs in folders and below, by path.

    Raises:
        GradbenchError: if there is none, or one is damaged.
    """
    runs = sorted(find_runs(folders), key=lambda run: str(run.path))
    if not runs:
        raise GradbenchError(
            f"no finished run under {' or '.join(map(str, folders))}: `gradbench run "
            "experiment=quickstart out=results/quickstart` makes one, results=DIR names another "
            "folder"
        )
    return runs


def _drawn(draw: Any, alt: str, *arguments: Any) -> list[Picture]:
    """Return what a function of `figures` draws, none where it draws nothing."""
    stream = io.BytesIO()
    draw(stream, *arguments)
    return _pictures(stream, alt) if stream.getvalue() else []


def _pictures(source: io.BytesIO | Path, alt: str) -> list[Picture]:
    """Return a PNG as a picture of few colours.

    Raises:
        GradbenchError: if it cannot be read.
    """
    buffer = io.BytesIO()
    try:
        with Image.open(source) as picture:
            few = picture.convert("RGB").quantize(
                COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
            )
            few.save(buffer, "PNG", optimize=True)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as fault:
        raise GradbenchError(f"the picture {source} cannot be read: {fault}") from fault
    uri = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return [Picture(uri, *few.size, alt)]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
