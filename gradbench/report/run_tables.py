"""The tables of one run: `table.md`, and the short form for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from string import ascii_lowercase
from typing import Any

import pandas as pd

from gradbench.protocols.base import Grouped
from gradbench.report.figures import label
from gradbench.report.finished_run import DETECTION
from gradbench.report.numbers import DASH, accuracies, percent, with_interval, with_range
from gradbench.report.run_rows import (
    ATTACKS,
    FEW,
    MEASURES,
    NOT_MEASURED,
    OTHER_IMAGES,
    Cell,
    Line,
    RunRows,
)
from gradbench.report.table import ALIKE, TextTable, markdown, plain
from gradbench.run.rows import INDICATIVE, NO_LEVEL

About = Mapping[str, Any]
"""The facts that a table states besides its numbers: `about` of a run.json, see `finished_run`."""
ALARM = 0.001
"""A p-value after Holm below this is marked."""
WIDEST = 140
"""Characters of a line in a terminal; a table that is wider shows no intervals."""
P_FOLDS = "p, folds"
"""Header of the t-test over folds."""
SUPERVISION = {
    "none": "nothing",
    "synthetic": "nothing; it makes challenges of its own from clean images",
    "tuning": "images of the challenge, to choose settings",
    "training": "images of the challenge, to fit weights",
}
SOURCES = {
    "part": "only a part of the set was at hand or asked for; the whole set may give other numbers",
    "stand_in": "another set, or images made like it, standing in for the one the papers used",
    "regenerated": "brought to this shape here; an archive made by others may be easier or harder",
    "generated": "made here, from the clean test images or from random numbers alone",
}
"""Footnotes of the column `source`."""
ALIKE_NOTE = (
    f"{ALIKE}: not distinguishable from the highest of the same challenge: the interval of their "
    "difference holds zero (rows of `auroc_difference`: paired bootstrap over source images, Holm "
    "over the comparisons with the highest of that challenge). The highest is better than all that "
    "have no mark, on other images for these networks and fitted detectors."
)
HIGHER = "Score: higher = more abnormal. Abnormal images are the positive class."
DETECTOR = ("challenge", "level", "detector")
"""Words of a row that is of one detector on one challenge."""
Row = tuple[tuple[str, ...], list[Cell]]
"""Words and cells of a row."""


def write_markdown(frame: pd.DataFrame, about: About) -> str:
    """Return `table.md` of a run; equal rows give equal bytes."""
    rows = RunRows(frame, about["protocol"])
    head = [f"# {about['experiment']}", about["remark"]]
    head += ["\n".join(f"- {line}" for line in conventions(rows, about))]
    head += [markdown(detectors_table(about))]
    return "\n\n".join(filter(None, [*head, *_texts(tables(rows, about), markdown)])) + "\n"


def is_detection(about: About) -> bool:
    """Tell whether a run measured scores of normal and abnormal images."""
    return about.get("task", DETECTION) == DETECTION


def _task_table(rows: RunRows, about: About) -> TextTable:
    """Return every measure of a task other than detection, with its interval.

    Columns are the task's measures, in percent; of several networks the mean and range.
    """
    frame = rows.frame[rows.frame["role"].isin(["main", "transfer"])]
    frame = frame[frame["fold"].isin(["all", ""]) & (frame["compared_with"] == "")]
    found: list[Row] = []
    metrics = sorted(set(frame["metric"]) - {""})
    for (challenge, level, method), own in frame.groupby(
        ["challenge", "level", "method"], sort=False
    ):
        words = (challenge, "" if level == NO_LEVEL else level, method)
        cells = []
        for metric in metrics:
            of_metric = own[(own["metric"] == metric) & own["value"].notna()]
            if of_metric.empty:
                cells.append(Cell(""))
                continue
            one = of_metric.iloc[0]
            text = with_range(list(of_metric["value"]), percent)
            if len(of_metric) == 1:
                text = with_interval(one["value"], one["lo"], one["hi"], one["note"])
            cells.append(Cell(text, of_metric["value"].mean()))
        holes = [note for note in own["note"] if note.startswith(NOT_MEASURED)]
        if holes and not metrics:
            cells = [Cell("", reason=holes[0].removeprefix(NOT_MEASURED))]
        found.append((words, cells))
    text = f"In percent; {_spread(about)}."
    columns = [label(metric) for metric in metrics] or ["value"]
    labels = ("challenge", "level", "method")
    return build_table(labels, columns, found, title=about["task"].capitalize(), text=text)


def write_terminal(frame: pd.DataFrame, about: About) -> str:
    """Return the main table as aligned plain text, without a line end."""
    rows = RunRows(frame, about["protocol"])
    head = [
        f"{about['experiment']}: {about['in_dist']} in; {_network(about)}",
        about["remark"],
        *_left_out(about),
        *_refused(about),
        f"AUROC in percent; {_spread(about)}; * the highest on a challenge."
        if is_detection(about)
        else f"In percent; {_spread(about)}.",
    ]
    shown = main_tables(rows, about)
    wide = max(len(line) for line in plain(shown[-1]).splitlines()) > WIDEST
    if wide and is_detection(about):
        shown = main_tables(rows, about, bare=True)
    return "\n\n".join(["\n".join(filter(None, head)), *_texts(shown, plain, bare=True)])


def _texts(shown: Iterable[TextTable], write: Any, bare: bool = False) -> list[str]:
    """Return the parts of tables as texts, titles and paragraphs left away for `bare`."""
    texts = []
    for table in shown:
        texts += [] if bare else [f"## {table.title}" * bool(table.title), table.text]
        texts += [write(table) if table.header else ""]
        texts += ["\n".join(f"- {note}" for note in part) for part in (table.reasons, table.notes)]
    return [text for text in texts if text]


def conventions(rows: RunRows, about: About) -> list[str]:
    """Return what the numbers of a run mean, a sentence each."""
    counts = dict.fromkeys(n for line in rows.lines() if (n := rows.count(line, "n_normal")))
    several = "s" * (len(about["accuracy"]) > 1)
    seeds = ", ".join(map(str, about["accuracy"]))
    return [
        f"Normal images: {about['in_dist']}, {' or '.join(counts) or about['n_clean']} test "
        "images measured.",
        f"Network f: {_network(about)} (seed{several} {seeds}).",
        f"Protocol: `{about['protocol']}`. {about.get('told') or Grouped().explanation}",
        *_left_out(about),
        *([f"Hold-out: {about['hold_out']}."] if about.get("hold_out") else []),
        *_refused(about),
        *(f"In the place of gradbench's own: {one}." for one in about.get("shadows") or ()),
        *([HIGHER] if is_detection(about) else []),
        f"Command: `{about['command']}`",
    ]


def _left_out(about: About) -> list[str]:
    """Return which detectors the protocol does not measure."""
    left = about.get("left_out") or {}
    names = ", ".join(f"{name} ({supervision})" for name, supervision in left.items())
    return [f"Left out, for they see challenges: {names}."] if left else []


def _refused(about: About) -> list[str]:
    """Return why detectors could not be measured at all, a sentence each."""
    return [f"Left out: {reason}." for reason in (about.get("refused") or {}).values()]


def _network(about: About) -> str:
    width = f" of width {about['width']}" if about["width"] else ""
    origin = f" ({about['network_origin']})" if about.get("network_origin") else ""
    return f"{about['backbone']}{width}{origin}, test accuracy {accuracies(about)}"


def _spread(about: About) -> str:
    if len(about["accuracy"]) > 1:
        return f"mean of {len(about['accuracy'])} networks with their range in parentheses"
    return "with interval, or with the exact lower bound (≥) where hardly an image is mistaken"


def detectors_table(about: About) -> TextTable:
    """Return what each detector reads, needs and sees."""
    header = (
        *("detector", "reads", "passes of an image", "supervision", "sees of the challenge"),
        "sees of clean images",
    )
    rows = []
    for name, one in about["detectors"].items():
        reads = one["reads"] if isinstance(one["reads"], str) else ", ".join(one["reads"])
        seen = (one["supervision"], SUPERVISION[one["supervision"]], one["clean_seen"])
        rows.append((name, reads, one.get("passes", ""), *seen))
    return TextTable(header, tuple(rows), labels=len(header)).without_empty_columns()


def tables(rows: RunRows, about: About) -> list[TextTable]:
    """Return the tables of a run, the main one first."""
    if not is_detection(about):
        return main_tables(rows, about)
    detectors = list(about["detectors"])
    names = rows.methods(detectors)
    others = (
        _transfer(rows, names),
        _article(rows, names, about),
        _networks(rows, names),
        _measures(rows, names),
        _attacks(rows),
        _controls(rows, detectors),
        _random_split(rows, detectors),
    )
    return [*main_tables(rows, about), *(table for table in others if table.rows)]


def build_table(
    labels: Sequence[str], columns: Sequence[str], rows: Sequence[Row], **more: Any
) -> TextTable:
    """Return a table of cells; empty ones point by letters to their reasons below it.

    `labels` are headers of the columns of words, `columns` of those of cells; `more` holds `title`,
    `text` and `notes` of the table.
    """
    letters: dict[str, str] = {}
    texts, marks = [], {}
    for r, (words, cells) in enumerate(rows):
        shown = []
        for c, cell in enumerate(cells, len(labels)):
            place = len(letters)
            letter = ascii_lowercase[place % 26] * (place // 26 + 1)
            letter = letters.setdefault(cell.reason, letter) if cell.reason else ""
            shown.append(f"{DASH} ({letter})" if cell.reason else cell.text)
            marks |= {(r, c): cell.mark} if cell.mark else {}
        texts.append((*words, *shown))
    more["reasons"] = tuple(f"({x}) {NOT_MEASURED}{reason}" for reason, x in letters.items())
    table = TextTable((*labels, *columns), tuple(texts), len(labels), marks, **more)
    return table.without_empty_columns()


def _transposed(rows: Sequence[Row], words: Sequence[tuple[str, ...]]) -> list[Row]:
    """Return a row for every column of cells, with words of its own."""
    return [(own, [cells[c] for _, cells in rows]) for c, own in enumerate(words)]


def main_tables(rows: RunRows, about: About, bare: bool = False) -> list[TextTable]:
    """Return AUROC of every detector on every challenge, without intervals for `bare`.

    Detectors are columns; where they outnumber the challenges, or were fitted on some of them, they
    are rows, and the challenges stand in a table of their own before.
    """
    if not is_detection(about):
        return [_task_table(rows, about)]
    lines, names = rows.lines(), rows.methods(about["detectors"])
    head = {"title": "AUROC"}
    head["text"] = f"In percent; {_spread(about)}. Bold: the highest on a challenge."
    if not lines:
        return [TextTable((), (), title="AUROC", notes=("No challenge was asked for.",))]
    entries: list[Row] = []
    for line in lines:
        words = (
            line.challenge,
            line.level,
            rows.count(line, "n_abnormal") + ", indicative" * rows.is_indicative(line),
            ", ".join(rows.column(line, "source")),
        )
        # Means over different challenges are not ranked.
        same = not line.is_mean or len(rows.remarks(line)) < 2
        cells = rows.ranked(line, names) if same else [rows.cell(line, name) for name in names]
        entries.append((words, [cell.bare for cell in cells] if bare else cells))
    marked = any(cell.mark == "alike" for _, cells in entries for cell in cells)
    notes = (*([ALIKE_NOTE] if marked else []), *_footnotes(rows, lines))
    labels = ("challenge", "level", "n abnormal", "source")
    if len(names) <= max(FEW, len(lines)) and not rows.transferred():
        return [build_table(labels, names, entries, notes=notes, **head)]
    supervision = {name: one.get("supervision", "") for name, one in about["detectors"].items()}
    words = [(name, supervision.get(name.partition("@")[0], "")) for name in names]
    titles = [line.title for line in lines]
    turned = _transposed(entries, words)
    return [
        build_table(labels, (), [(words, []) for words, _ in entries], **head),
        build_table(("detector", "supervision"), titles, turned, notes=notes),
    ]


def _footnotes(rows: RunRows, lines: Sequence[Line]) -> list[str]:
    """Return what the words of the column `source` mean, and the notes on the images."""
    sources = {source for line in lines for source in rows.column(line, "source")}
    notes = [f"{source}: {text}." for source, text in SOURCES.items() if source in sources]
    if any(rows.is_indicative(line) for line in lines):
        notes.append(f"{INDICATIVE}; small differences may be chance.")
    challenges: dict[str, dict[str, None]] = {}
    for line in lines:
        if remarks := rows.remarks(line):
            challenges.setdefault("; ".join(remarks), {})[line.challenge] = None
    return notes + [f"{', '.join(names)}: {remark}." for remark, names in challenges.items()]


def transfer_cell(rows: RunRows, name: str, line: Line) -> tuple[Cell, bool]:
    """Return what a detector fitted on one challenge gives on another, and whether it is the same.

    On the very challenge it is what `grouped` measures on other images.
    """
    own = rows.cell(line._replace(role=OTHER_IMAGES), name)
    return (own, True) if own.value is not None else (rows.cell(line, name), False)


def _transfer(rows: RunRows, names: Sequence[str]) -> TextTable:
    lines, transferred, entries = rows.lines(), rows.transferred(), []
    for name in names:
        cells = []
        for line in lines if name in transferred else ():
            cell, own = transfer_cell(rows, name, line)
            cell = cell if rows.intervals else cell.bare
            cells.append(cell._replace(text=f"({cell.text})") if own else cell)
        entries += [((name,), cells)] if cells else []
    text = (
        "AUROC in percent of detectors that were fitted on the challenge after the `@`, measured "
        "on the challenges above. In parentheses: measured on other images of the very challenge, "
        "as `grouped` does. Columns of a mean stand for the others of one kind, and are empty "
        "where these are fewer than two."
    )
    titles = [line.title for line in lines]
    return build_table(("detector",), titles, entries, title="Transfer", text=text)


def _article(rows: RunRows, names: Sequence[str], about: About) -> TextTable:
    """Return detection accuracy as the article of 2023 reports it."""
    entries: list[Row] = []
    lines = rows.lines() if about["protocol"].startswith("access2023") else []
    half, best = MEASURES["accuracy, 0.5"], MEASURES["accuracy, best"]
    for line in lines:
        for name in names:
            detector = about["detectors"][name]
            # H of the article: fitted to gradient norms on the challenge.
            norms = any(read.startswith("squared_norms") for read in detector["reads"])
            fitted = norms and detector["supervision"] == "training"
            at_half = rows.cell(line, name, half) if fitted else Cell("")
            at_best = Cell("") if at_half.value is not None else rows.cell(line, name, best)
            if at_half.value is not None or at_best.value is not None:
                cells = [at_half, at_best, rows.p_folds(line, name)]
                entries.append(((line.challenge, line.level, name), cells))
    text = (
        "In percent, as reported in 2023: at 0.5 for detectors fitted to gradient norms on the "
        "challenge, at the best threshold for these very images for all others, which flatters "
        f"them. {P_FOLDS}: of the corrected repeated k-fold t-test that the detector's AUROC is "
        "that of the highest on the challenge, each by itself, uncorrected for their number; no "
        "mark in the tables above goes by it."
    )
    columns = ("accuracy, 0.5", "accuracy, best", P_FOLDS)
    title = "Detection accuracy as in the article"
    return build_table(DETECTOR, columns, entries, title=title, text=text)


def _networks(rows: RunRows, names: Sequence[str]) -> TextTable:
    entries = [
        ((line.challenge, line.level, name), cells)
        for line in rows.lines()
        for name in names
        if (cells := rows.over_networks(line, name))
    ]
    text = (
        "AUROC in percent. The interval speaks of other images for these networks (resamples of "
        "the source images, the same for all networks), the range of the networks for these images."
    )
    columns = ("mean", "interval over images", "range over networks")
    return build_table(DETECTOR, columns, entries, title="Several networks", text=text)


def _measures(rows: RunRows, names: Sequence[str]) -> TextTable:
    text = (
        "In percent. AUPR takes normal images (in) or abnormal images (out) as positive and is "
        "average precision; balanced gives both sides the same weight. Accuracy is detection "
        "accuracy, the mean of the shares of both sides that are recognised: at the best threshold "
        "for these very images, at the best one for *choose*, or where the detector itself says "
        "0.5. FPR95 is the share of the other side that is let through where 95 % of the side "
        "named are recognised; lower is better."
    )
    entries = [
        ((line.challenge, line.level, name), cells)
        for line in rows.lines()
        for name in names
        if _any(cells := [rows.cell(line, name, measure) for measure in MEASURES.values()])
    ]
    return build_table(DETECTOR, tuple(MEASURES), entries, title="All measures", text=text)


def _attacks(rows: RunRows) -> TextTable:
    text = (
        "Images that were attempted, those of them that f classified correctly before, and those "
        "of these that it takes for another class after the attack; success is the share of the "
        "last two in percent. L2 is the mean over all images and L∞ the largest of all, pixels in "
        "[0, 1], then the same over the successful ones. All is measured after rounding to the "
        "grid, where images are rounded."
    )
    entries = [
        ((line.challenge, line.level), cells)
        for line in rows.lines(("attack",))
        if _any(cells := [rows.cell(line, "", measure) for measure in ATTACKS.values()])
    ]
    return build_table(("challenge", "level"), tuple(ATTACKS), entries, title="Attacks", text=text)


def _any(cells: Sequence[Cell]) -> bool:
    return any(cell.value is not None for cell in cells)


def _controls(rows: RunRows, names: Sequence[str]) -> TextTable:
    """Return what a detector must not be able to do, and how it does."""
    entries: list[Row] = []
    alarm = False
    for line in rows.controls():
        cells = []
        for name in names:
            cell = rows.cell(line, name)
            if line.role in ("identity", "memorisation") and cell.value is not None:
                cell = cell._replace(text=percent(cell.value))  # no interval that says anything
            if tested := rows.p_value(line, name):
                text, holm = tested
                alarm |= holm < ALARM
                text = f"{cell.text}, {text}{' (!)' if holm < ALARM else ''}"
                cell = cell._replace(text=text)
            cells.append(cell)
        entries.append(((line.challenge, line.level), cells))
        for same in round_trip_of(rows, line):
            words = (same.challenge, same.level)
            entries.append((words, [rows.cell(same, name) for name in names]))
    text = (
        "AUROC in percent. *identity*: a challenge of strength zero, 50 for every detector. "
        "*random_labels*: clean images against clean images, half of them called abnormal "
        "arbitrarily; a supervised detector must stay at chance. *round_trip:NAME*: clean images "
        "put through the resampling and compression of NAME, with NAME itself below; what is told "
        "apart there is told by the processing, not by content. *memorisation*: images of f's "
        "training set against clean ones that it was not trained on (the hold-out, the abnormal "
        "side); 50 for a score that does not know its training images, far from 50 also for one "
        "that was itself fitted on either."
    )
    warning = (
        f"(!) p below {ALARM} after Holm: this detector tells apart what is the same, so its "
        "other numbers are in doubt."
    )
    labels, columns = ("control", "level"), list(names)
    if len(names) > max(FEW, len(entries)):
        columns = [" ".join(filter(None, words)) for words, _ in entries]
        labels, entries = ("detector",), _transposed(entries, [(name,) for name in names])
    more = {"title": "Controls", "text": text, "notes": (warning,) * alarm}
    return build_table(labels, columns, entries, **more)


def round_trip_of(rows: RunRows, line: Line) -> list[Line]:
    """Return the lines of the challenge whose processing a round trip repeats."""
    if line.role != "round_trip":
        return []
    name = line.challenge.partition(":")[2]
    return [other for other in rows.lines() if other.challenge == name]


def _random_split(rows: RunRows, names: Sequence[str]) -> TextTable:
    """Return the random split beside the protocol of the run."""
    entries: list[Row] = []
    split = ""
    for line in rows.lines(("random_split",)):
        split = ", ".join(rows.column(line, "protocol"))
        random = [rows.cell(line, name) for name in names]
        usual = [rows.cell(line._replace(role="main"), name) for name in names]
        if _any(random):
            usual = [
                cell if there.value is not None else cell._replace(text="")
                for cell, there in zip(usual, random)
            ]
            entries.append(((line.challenge, line.level, split), random))
            entries.append(((line.challenge, line.level, rows.protocol), usual))
    text = (
        f"AUROC in percent. With `{split}`, the twin of a measured image (its clean original, or "
        "what was made from it) may have been fitted on. The difference between the two lines, up "
        "or down, is the work of the twins and not detection."
    )
    labels = ("challenge", "level", "split")
    return build_table(labels, names, entries, title="Random split", text=text)
