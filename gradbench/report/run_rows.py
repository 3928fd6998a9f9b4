"""The rows of one run, looked up by what they measure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from math import isnan
from typing import Any, NamedTuple

import pandas as pd

from gradbench.report import numbers
from gradbench.report.numbers import DASH, EXACT, percent
from gradbench.run.rows import INDICATIVE, NETWORKS, NO_CONTROLS, NO_LEVEL, is_mean

NOT_MEASURED = "not measured: "
KINDS = ("near", "far", "ood", "corruption", "adversarial")
"""Sets of challenges in the order of the main table."""
OTHER_IMAGES = "other_images"
"""Role of a detector fitted on one challenge and measured on other images of that challenge."""
FEW = 4
"""So many columns of detectors fit beside those of words."""


class Measure(NamedTuple):
    """The measure of a number, by the names that it has in the rows."""

    metric: str
    side: str = ""
    rule: str = ""


AUROC = Measure("auroc")
DIFFERENCE = Measure("auroc_difference")
RANGE = Measure("auroc_range")
MEASURES = {
    "AUPR in": Measure("aupr", "in"),
    "AUPR out": Measure("aupr", "out"),
    "AUPR out, balanced": Measure("aupr_balanced", "out"),
    "accuracy, best": Measure("detection_accuracy", "", "best"),
    "accuracy, choose": Measure("detection_accuracy", "", "choose"),
    "accuracy, 0.5": Measure("detection_accuracy", "", "half"),
    "FPR95, normal": Measure("fpr95", "normal"),
    "FPR95, abnormal": Measure("fpr95", "abnormal"),
}
"""Headers of the table of all measures."""
ATTACKS = {
    "attempted": Measure("attempted"),
    "correct": Measure("correct"),
    "successful": Measure("successful"),
    "success": Measure("attack_success"),
    "L2": Measure("l2"),
    "L∞": Measure("linf"),
    "L2, successful": Measure("l2_successful"),
    "L∞, successful": Measure("linf_successful"),
}
"""Headers of the table of attacks."""


COLUMNS = (
    *("role", "challenge_set", "challenge", "level", "source", "method", "protocol", "fold"),
    *("metric", "side", "threshold_rule", "value", "lo", "hi", "p", "p_holm", "p_folds"),
    *("n_normal", "n_abnormal", "unit", "note"),
)
"""Columns of the rows that tables show."""


class Line(NamedTuple):
    """A line of a table: what it is there for, and one challenge at one level ("" for none)."""

    role: str
    kind: str
    challenge: str
    level: str

    @classmethod
    def of(cls, row: Any, role: str = "") -> Line:
        """Return the line that a row belongs to."""
        level = "" if row.level == NO_LEVEL else row.level
        return cls(role or row.role, row.challenge_set, row.challenge, level)

    @property
    def is_mean(self) -> bool:
        """Whether it is the mean over the challenges of a set."""
        return is_mean(self.challenge)

    @property
    def title(self) -> str:
        """Name and level as text."""
        return f"{self.challenge} {self.level}".strip()


class Cell(NamedTuple):
    """A cell of a table: its text, its value, or None and the reason where nothing was measured.

    `low` and `high` are the ends of its interval, or of the range of several networks; the mark is
    `best`, `alike` (cannot be told from the best), or "".
    """

    text: str
    value: float | None = None
    low: float = float("nan")
    high: float = float("nan")
    reason: str = ""
    mark: str = ""

    @property
    def bare(self) -> Cell:
        """The cell without its interval or range."""
        return self._replace(text=self.text.split(" ", 1)[0])


class RunRows:
    """The rows of one run that are means over folds.

    With `intervals` every measure has its interval beside it, and not AUROC alone.
    """

    def __init__(self, frame: pd.DataFrame, protocol: str, intervals: bool = False):
        self.frame, self.protocol, self.intervals = frame, protocol, intervals
        self._rows: dict[tuple, list[Any]] = defaultdict(list)
        self._networks: dict[tuple, Any] = {}
        self._lines: dict[Line, list[Any]] = defaultdict(list)
        shown = frame.loc[frame["fold"].isin(["all", "", NETWORKS]), list(COLUMNS)]
        for row in shown.astype(object).itertuples(index=False):
            role = "main" if row.role == "transfer" else row.role
            if row.role == "transfer" and row.protocol != protocol:
                role = OTHER_IMAGES
            line = Line.of(row, role)
            measure = Measure(row.metric, row.side, row.threshold_rule)
            if row.fold == NETWORKS:
                self._networks[line, row.method, measure] = row
                continue
            method = "" if role == "attack" else row.method
            self._rows[line, method, measure].append(row)
            self._lines[line].append(row)
            if role == OTHER_IMAGES:  # the challenge has a line even if nothing else was measured
                self._lines[line._replace(role="main")].append(row)

    def controls(self) -> list[Line]:
        """Return the lines of all controls but `random_split`, which has a table of its own."""
        others = (*NO_CONTROLS, OTHER_IMAGES, "random_split")
        return self.lines({line.role for line in self._lines}.difference(others))

    def lines(self, roles: Collection[str] = ("main",)) -> list[Line]:
        """Return the lines of some roles; each set's mean is its last."""
        lines = [line for line in self._lines if line.role in roles]
        order = {kind: place for place, kind in enumerate(KINDS)}
        return sorted(lines, key=lambda line: (order.get(line.kind, 9), line.is_mean))

    def methods(self, detectors: Any) -> list[str]:
        """Return detectors as they stand in the rows: `NAME@CHALLENGE` where fitted elsewhere."""
        rows = [row for line in self.lines() for row in self._lines[line]]
        measured = dict.fromkeys(row.method for row in rows if row.metric == AUROC.metric)
        names = []
        for detector in detectors:
            names += [name for name in measured if name.startswith(f"{detector}@")] or [detector]
        return names

    def transferred(self) -> set[str]:
        """Return the methods that were fitted on one challenge for all others."""
        return {r.method for rows in self._lines.values() for r in rows if r.role == "transfer"}

    def cell(self, line: Line, method: str, measure: Measure = AUROC) -> Cell:
        """Return one cell: a value with its interval; of several networks the mean and range.

        What an attack did belongs to no detector: `method` is then "".
        """
        rows = self._rows.get((line, method, measure), [])
        known = [row for row in rows if not isnan(row.value)]
        if not known:
            return Cell("", reason=self._reason(line, rows, method))
        values, row = [row.value for row in known], known[0]
        if len(known) > 1:
            low, high = min(values), max(values)
        else:
            low, high = row.lo, row.hi
        formats = {"percent": percent, "images": numbers.count}
        text = numbers.with_range(values, formats.get(row.unit, numbers.significant))
        if len(known) == 1 and (measure == AUROC or (self.intervals and row.unit == "percent")):
            text = numbers.with_interval(row.value, row.lo, row.hi, row.note)
        return Cell(text, sum(values) / len(values), low, high)

    def ranked(self, line: Line, methods: list[str]) -> list[Cell]:
        """Return AUROC of some methods, the best marked where they differ, and those alike."""
        cells = [self.cell(line, name) for name in methods]
        values = [None if cell.value is None else round(cell.value, 6) for cell in cells]
        known = [value for value in values if value is not None]
        if not known or min(known) == max(known):
            return cells
        marks = [
            "best" if value == max(known) else "alike" if self.is_alike(line, name) else ""
            for name, value in zip(methods, values)
        ]
        return [cell._replace(mark=mark) for cell, mark in zip(cells, marks)]

    def is_alike(self, line: Line, method: str) -> bool:
        """Tell whether the interval of a detector's difference from the best holds zero."""
        rows = self._rows.get((line, method, DIFFERENCE), [])
        return any(row.lo <= 0 <= row.hi for row in rows)

    def over_networks(self, line: Line, method: str) -> list[Cell]:
        """Return the mean of several networks, its interval over images, and their range."""
        mean = self._networks.get((line, method, AUROC))
        ends = self._networks.get((line, method, RANGE))
        if mean is None or ends is None:
            return []
        spans = [
            "" if isnan(r.lo) else f"{percent(r.lo)}{DASH}{percent(r.hi)}" for r in (mean, ends)
        ]
        return [Cell(percent(mean.value), mean.value), *map(Cell, spans)]

    def p_value(self, line: Line, method: str) -> tuple[str, float] | None:
        """Return the p-values of a control as text, and the smallest after Holm."""
        rows = self._rows.get((line, method, AUROC), [])
        known = [row for row in rows if not isnan(row.p_holm)]
        if not known:
            return None
        row = min(known, key=lambda row: row.p_holm)
        text = f"p = {row.p:.3g}, Holm {row.p_holm:.3g}"
        return (text if len(known) == 1 else f"smallest {text}"), row.p_holm

    def p_folds(self, line: Line, method: str) -> Cell:
        """Return p of the t-test over folds that a detector's AUROC is that of the best."""
        rows = self._rows.get((line, method, DIFFERENCE), [])
        values = [row.p_folds for row in rows if not isnan(row.p_folds)]
        return Cell(f"{values[0]:.3g}", values[0]) if values else Cell("")

    def count(self, line: Line, column: str) -> str:
        """Return `n_normal` or `n_abnormal`, as a range where it differs between networks."""
        counts = {getattr(row, column) for row in self._aurocs(line)}
        counts = sorted(int(n) for n in counts if not pd.isna(n))
        return DASH.join(str(n) for n in dict.fromkeys(counts[:1] + counts[-1:]))

    def column(self, line: Line, name: str) -> list[str]:
        """Return the texts in a column of a line's rows, each once."""
        return list(dict.fromkeys(v for row in self._lines[line] if (v := getattr(row, name))))

    def is_indicative(self, line: Line) -> bool:
        """Tell whether a challenge was measured on few abnormal images."""
        return any(INDICATIVE in note for note in self.column(line, "note"))

    def remarks(self, line: Line) -> list[str]:
        """Return what the notes tell of the images, each remark once."""
        about_numbers = (EXACT, NOT_MEASURED, "no interval", INDICATIVE)
        notes = [
            part
            for row in self._aurocs(line)
            for part in row.note.split("; ")
            if part and not part.startswith(about_numbers)
        ]
        return list(dict.fromkeys(notes))

    def _aurocs(self, line: Line) -> list[Any]:
        rows = self._lines[line]
        return [r for r in rows if r.metric == AUROC.metric and r.protocol == self.protocol]

    def _reason(self, line: Line, rows: list[Any], method: str) -> str:
        """Return why a cell is empty, from its own rows or from those of the whole challenge."""
        own = [row for row in self._lines.get(line, ()) if row.method in ("", method)]
        # A hole of one measure tells nothing of the others.
        for row in [*rows, *(row for row in own if not row.metric)]:
            if row.note.startswith(NOT_MEASURED):
                return row.note.removeprefix(NOT_MEASURED)
        return ""


def best_detectors(rows: RunRows, names: list[str], most: int, always: str) -> tuple[list, str]:
    """Return the detectors that a figure with a line for each can show, and which they are.

    Of many, `always` and those with the highest mean AUROC over the challenges, in the order given.
    """
    if len(names) <= most:
        return list(names), ""
    means = {}
    for name in names:
        cells = [rows.cell(line, name).value for line in rows.lines() if not line.is_mean]
        values = [value for value in cells if value is not None]
        if values and name != always:
            means[name] = sum(values) / len(values)
    baseline = [name for name in names if name == always]
    best = sorted(means, key=lambda name: -means[name])[: most - len(baseline)]
    which = " and ".join([*baseline, f"the {len(best)} best of {len(names)} on the mean"])
    return [name for name in names if name in baseline or name in best], which
