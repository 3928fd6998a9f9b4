"""A paper's table as a document: terminal, Markdown, HTML."""

from __future__ import annotations

from itertools import combinations
from textwrap import fill as wrap

import pandas

from gradbench.report import table as writers
from gradbench.report.finished_run import FinishedRun
from gradbench.report.numbers import accuracies
from gradbench.report.papers.fill import FilledTable
from gradbench.report.papers.layout import Notes, labels, panels
from gradbench.report.table import ALIKE, html, html_list, html_text
from gradbench.run.rows import DIGITS

NEAR_NOTE = (
    f"{ALIKE}: not distinguishable from the best: the interval of their difference in the run "
    "holds zero (rows of `auroc_difference`)."
)
WIDTH = 100
"""Columns of a terminal that a table should fit in."""
SEES = {
    "none": "nothing of the challenge",
    "synthetic": "challenges of its own, made from clean images",
    "tuning": "images of the challenge, to choose settings",
    "training": "images of the challenge, to fit weights",
}
UNITS = {"percent": "percent", "fraction": "fractions", "ms": "milliseconds", "count": "counts"}
NEAR = (1, 5)
"""Points within which a measured value is counted as near the published one."""
NAMED = 6
"""Places that are named of each pair of methods; more are counted."""


def terminal(filled: FilledTable, width: int = WIDTH) -> str:
    """Return a table as aligned text, wide panels in pieces below each other."""
    notes = Notes()
    laid_out = panels(filled.table, filled.cells, notes, width)
    blocks = [_title(filled), _wrapped(_head(filled, "*"), width)]
    for title, grids in laid_out.items():
        blocks += [title, *map(writers.plain, grids)]
    blocks += [_wrapped(notes.lines(), width, bullet="")]
    blocks += ["Compared with the print\n" + _wrapped(comparison(filled), width)]
    blocks += [_wrapped(_made_from(filled), width)]
    return "\n\n".join(block for block in blocks if block)


def markdown(filled: FilledTable) -> str:
    """Return a table as Markdown."""
    notes = Notes()
    laid_out = panels(filled.table, filled.cells, notes)
    blocks = [f"# {_title(filled)}", _listed(_head(filled))]
    for title, (only,) in laid_out.items():
        blocks += [f"## {title}" * bool(title), writers.markdown(only)]
    blocks += [_listed(notes.lines()), "## Compared with the print", _listed(comparison(filled))]
    blocks += ["## Made from", _listed(_made_from(filled))]
    return "\n\n".join(block for block in blocks if block) + "\n"


def html_fragment(filled: FilledTable, level: int = 2) -> str:
    """Return a section element with the table and a heading of a level; no style is given."""
    notes = Notes()
    title = _title(filled)
    blocks = [
        f'<section class="paper-table" id="table-{html_text(filled.table.name)}">',
        f"<h{level}>{html_text(title)}</h{level}>",
        html_list(_head(filled), "conventions"),
    ]
    for panel, (only,) in panels(filled.table, filled.cells, notes).items():
        blocks.append(html(only, panel or title))
    blocks += [
        html_list(notes.lines(), "notes"),
        f"<h{level + 1}>Compared with the print</h{level + 1}>",
        html_list(comparison(filled), "verdict"),
        html_list(_made_from(filled), "runs"),
        "</section>",
    ]
    return "\n".join(block for block in blocks if block) + "\n"


def _title(filled: FilledTable) -> str:
    return f"{filled.table.name}: {filled.table.title}"


def _head(filled: FilledTable, best: str = "Bold") -> list[str]:
    near = [NEAR_NOTE] if filled.cells["near_best"].eq("yes").any() else []
    own = " and network" if len(filled.networks) > 1 else ""
    return [
        f"{filled.tally}.",
        *_conventions(filled),
        *near,
        f"{best}: the best of its group{own}.",
    ]


def _wrapped(lines: list[str], width: int, bullet: str = "- ") -> str:
    indent = " " * (len(bullet) or 4)
    return "\n".join(wrap(bullet + line, width, subsequent_indent=indent) for line in lines)


def _listed(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _conventions(filled: FilledTable) -> list[str]:
    """Return sentences on the print, the metrics, the networks, the protocol and the detectors."""
    table, measured = filled.table, filled.measured
    decks = dict.fromkeys(";".join(table.printed["source"]).split(";"))
    units = [UNITS[unit] for unit in table.printed["unit"].unique() if unit in UNITS]
    sentences = [f"Published: {', '.join(table.printed['paper'].unique())}, as printed on "
             f"{', '.join(decks)}."]  # fmt: skip
    if units:
        sentences.append(f"Units: {', '.join(units)}, measured values likewise.")
    sentences += [f"{m.title}: {m.definition}" for m in table.metrics.values() if m.definition]
    sentences += table.notes
    if measured.empty:
        return sentences
    networks = {(run.comparable, run.in_dist, run.backbone): run for run in filled.runs}
    protocols = dict.fromkeys(run.protocol for run in filled.runs)
    return [
        *sentences,
        "Measured: with interval where there is one; ≥ is an exact lower bound; a range in "
        "parentheses is that of several networks. Difference: measured less published.",
        *map(_network, networks.values()),
        f"Protocol: {', '.join(protocols)}; a value is the mean over its folds.",
        *_counts(measured),
        *_methods(measured),
    ]


def comparison(filled: FilledTable) -> list[str]:
    """Return how the measured numbers compare with the printed ones: counted, not judged.

    Methods are ranked within each group and network by the values of both sides; where either side
    is equal, the order does not differ. Metrics whose convention is not known are not ranked.
    """
    sentences, networks = [], filled.networks
    if not networks:
        return ["Nothing is measured."]
    for network in networks:
        cells = filled.measured
        cells = cells[cells["network"] == network]
        first = cells[~cells.index.duplicated()]
        differences = first["difference"].dropna().abs()
        near = " and ".join(
            f"{(differences <= n).sum()} within {n} point{'s' * (n > 1)}" for n in NEAR
        )
        told = [f"{network}, {len(first)} cells."] if len(networks) > 1 else []
        if len(differences):
            told.append(f"Of {len(differences)} differences, {near} of the published value.")
        pairs, differ = _other_order(filled, first)
        if pairs:
            count = sum(map(len, differ.values()))
            told.append(
                f"The order of two methods differs from the print in {count} of {pairs} "
                f"comparisons{':' if count else '.'}"
            )
        sentences.append(" ".join(told))
        for (printed, here), places in differ.items():
            named = ", ".join(places[:NAMED])
            more = f" and {len(places) - NAMED} more" if len(places) > NAMED else ""
            sentences.append(f"{here} above {printed} here, below it in print: {named}{more}.")
    return sentences


def _made_from(filled: FilledTable) -> list[str]:
    """Return from which runs a table was made, and what was left out."""
    cells = filled.measured.set_index("network", append=True)
    counts = cells[~cells.index.duplicated()]["run"].value_counts()
    sentences = [
        f"Made from {run.path} ({run.begun[:10]}, code {run.commit[:7]}): "
        f"{counts[run.path.as_posix()]} cells."
        for run in filled.runs
    ]
    return [*(sentences or ["Made from no run."]), *filled.left_out]


def _network(run: FinishedRun) -> str:
    origin = run.about["network_origin"]
    width = f" of width {run.about['width']}" if run.about["width"] else ""
    seeds = list(run.about["accuracy"])
    return (
        f"Network f: {run.backbone}{width}, trained on {run.in_dist}, "
        + (f"{origin}" if origin else f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}")
        + f", test accuracy {accuracies(run.about)}."
    )


def _counts(measured: pandas.DataFrame) -> list[str]:
    """Return how many images of each side were measured, for each network."""
    sentences, several = [], measured["network"].nunique() > 1
    for network, of_network in measured.groupby("network", sort=False):
        texts = []
        for (normal, abnormal), own in of_network.groupby(["n_normal", "n_abnormal"], sort=False):
            names = list(dict.fromkeys(own["our_challenge"]))
            named = ", ".join(names) if len(names) <= 3 else f"{len(names)} challenges"
            texts.append(f"{normal} : {abnormal} ({named})")
        whose = f", {network}" if several else ""
        sentences.append(f"Normal : abnormal images measured{whose}: {'; '.join(texts)}.")
    return sentences


def _methods(measured: pandas.DataFrame) -> list[str]:
    """Return which detector each method is here, and what it sees."""
    sentences = []
    for row in measured.drop_duplicates("method", keep="last").itertuples():
        clean = "" if row.clean_seen in ("", "none") else f"; of clean images: {row.clean_seen}"
        sees = f"sees {SEES.get(row.supervision, row.supervision)}{clean}"
        sentences.append(
            f"{row.method} is `{row.our_method}`, supervision {row.supervision}: {sees}."
        )
    return sentences


def _other_order(
    filled: FilledTable, cells: pandas.DataFrame
) -> tuple[int, dict[tuple[str, str], list[str]]]:
    """Return the pairs ranked, and (above in print, above here) -> where their order differs."""
    table = filled.table
    ranked = cells[[table.metrics[name].comparable for name in cells["metric"]]]
    sign = table.printed["higher_is_better"].map({"1": 1, "0": -1})
    value = ranked["measured"].round(DIGITS)
    printed = ranked["published"].astype(float)
    columns = [c for part in table.layout.values() for c in part if c not in table.compare]
    varied = [c for c in columns if table.printed[c].nunique() > 1]
    pairs, differ = 0, {}
    for _, own in ranked.groupby(table.printed["group"].reindex(ranked.index)):
        place = " ".join(filter(None, labels(table, own.iloc[0], varied))) if varied else ""
        for a, b in combinations(own.index, 2):
            pairs += 1
            order = sign[a] * (printed[a] - printed[b])
            if order * sign[a] * (value[a] - value[b]) < 0:
                above, below = (a, b) if order > 0 else (b, a)
                names = [" ".join(filter(None, own.loc[i, list(table.compare)]))
                         for i in (above, below)]  # fmt: skip
                differ.setdefault(tuple(names), []).append(place)
    return pairs, differ
