"""Rows of a run looked up by what they measure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import isnan
from typing import Any, NamedTuple

import pandas as pd

from gradbench.report.numbers import (
    DASH,
    EXACT,
    count,
    number,
    size,
    with_interval,
    with_range,
)
from gradbench.run.rows import INDICATIVE, NETWORKS, NO_LEVEL, is_mean

HOLE = "not measured: "
KINDS = ("ood", "corruption", "adversarial")
"""Challenges of the main table, in its order."""


class Measure(NamedTuple):
    """What a number measures, by the names it has in the rows."""

    metric: str
    side: str = ""
    rule: str = ""


AUROC = Measure("auroc")
DIFFERENCE = Measure("auroc_difference")
RANGE = Measure("auroc_range")
COLUMNS = {
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


class Line(NamedTuple):
    """A line of a table: one challenge at one level ("" where there are none)."""

    kind: str
    challenge: str
    level: str

    @classmethod
    def of(cls, row: Any) -> Line:
        """Return the line that a row belongs to."""
        level = "" if row.level == NO_LEVEL else row.level
        return cls(row.challenge_set, row.challenge, level)

    @property
    def is_mean(self) -> bool:
        """Whether it is the mean over the challenges of a set."""
        return is_mean(self.challenge)

    @property
    def title(self) -> str:
        """Name and level as text."""
        return f"{self.challenge} {self.level}".strip()


class Cell(NamedTuple):
    """A cell of a table: its text, and its value or the reason why there is none."""

    text: str
    value: float | None = None
    reason: str = ""


class View:
    """The rows of one run that hold means over folds.

    Args:
        frame: rows as `evaluation.rows.frame` gives them.
        protocol: the one that the tables show.
        intervals: whether every measure has its interval beside it, and not AUROC alone.
    """

    def __init__(self, frame: pd.DataFrame, protocol: str, intervals: bool = False):
        self.protocol, self.intervals = protocol, intervals
        self._rows: dict[tuple, list[Any]] = defaultdict(list)
        self._lines: dict[Line, list[Any]] = defaultdict(list)
        self._networks = {
            (
                Line.of(row),
                row.method,
                Measure(row.metric, row.side, row.threshold_rule),
            ): row
            for row in frame[frame["fold"] == NETWORKS].itertuples(index=False)
        }
        kept = frame[frame["fold"].isin(["all", ""])]
        for row in kept.itertuples(index=False):
            line = Line.of(row)
            measure = Measure(row.metric, row.side, row.threshold_rule)
            method = "" if measure in ATTACKS.values() else row.method
            self._rows[line, method, measure, row.protocol or protocol].append(row)
            self._lines[line].append(row)

    def lines(self, kinds: Iterable[str] = KINDS) -> list[Line]:
        """Return the challenges of the given sets in the order of the rows, each mean last."""
        return [
            line
            for kind in kinds
            for line in sorted(self._lines, key=lambda line: line.is_mean)
            if line.kind == kind
        ]

    def methods(self, detectors: Iterable[str]) -> list[str]:
        """Return detectors as they stand in the rows: `NAME@CHALLENGE` where fitted elsewhere."""
        found = dict.fromkeys(method for line in self.lines() for method in self._methods(line))
        return [
            name
            for detector in detectors
            for name in [n for n in found if n.startswith(f"{detector}@")] or [detector]
        ]

    def alike(self, line: Line, method: str) -> bool:
        """Tell whether the interval of a detector's difference from the best holds zero."""
        rows = self._rows.get((line, method, DIFFERENCE, self.protocol), [])
        return any(row.lo <= 0 <= row.hi for row in rows)

    def networks(self, line: Line, method: str) -> list[Cell]:
        """Return the mean of several networks, its interval over images, and their range."""
        mean = self._networks.get((line, method, AUROC))
        ends = self._networks.get((line, method, RANGE))
        if mean is None or ends is None:
            return []
        spans = [Cell("" if isnan(r.lo) else f"{number(r.lo)}{DASH}{number(r.hi)}")
                 for r in (mean, ends)]  # fmt: skip
        return [Cell(number(mean.value), mean.value), *spans]

    def cell(
        self, line: Line, method: str, measure: Measure = AUROC, protocol: str | None = None
    ) -> Cell:
        """Return one cell; of one network with its interval, means with their range.

        What an attack did belongs to no detector: `method` is then empty.
        """
        protocol = self.protocol if protocol is None else protocol
        rows = self._rows.get((line, method, measure, protocol), [])
        found = [row for row in rows if not isnan(row.value)]
        if not found:
            return Cell("", None, self._reason(line, rows, method))
        values = [row.value for row in found]
        show = {"percent": number, "images": count}.get(found[0].unit, size)
        text = with_range(values, show)
        row = found[0]
        if len(found) == 1 and (measure == AUROC or (self.intervals and row.unit == "percent")):
            text = with_interval(row.value, row.lo, row.hi, row.note)
        return Cell(text, sum(values) / len(values))

    def protocol_of(self, line: Line) -> str:
        """Return the protocol of a line: that of the run, unless all its rows name another.

        The identity control is always measured with twins on one side.
        """
        found = dict.fromkeys(r.protocol for r in self._lines.get(line, ()) if not isnan(r.value))
        return self.protocol if self.protocol in found or not found else next(iter(found))

    def spread(self, line: Line, method: str) -> tuple[float, float, float] | None:
        """Return AUROC with its interval, or the mean of several networks with their range.

        The bounds are NaN where there is no interval; None where nothing was measured.
        """
        rows = self._rows.get((line, method, AUROC, self.protocol), [])
        found = [row for row in rows if not isnan(row.value)]
        if not found:
            return None
        if len(found) == 1:
            return found[0].value, found[0].lo, found[0].hi
        values = [row.value for row in found]
        return sum(values) / len(values), min(values), max(values)

    def p_value(self, line: Line, method: str) -> tuple[str, float] | None:
        """Return the p-values of a control as text and as number after Holm: the smallest."""
        rows = self._rows.get((line, method, AUROC, self.protocol), [])
        found = [row for row in rows if not isnan(row.p_holm)]
        if not found:
            return None
        row = min(found, key=lambda row: row.p_holm)
        text = f"p = {row.p:.3g}, Holm {row.p_holm:.3g}"
        return (text if len(found) == 1 else f"smallest {text}"), row.p_holm

    def p_folds(self, line: Line, method: str) -> Cell:
        """Return p of the t-test over folds that a detector's AUROC is that of the best."""
        rows = self._rows.get((line, method, DIFFERENCE, self.protocol), [])
        found = [row.p_folds for row in rows if not isnan(row.p_folds)]
        return Cell(f"{found[0]:.3g}", found[0]) if found else Cell("")

    def count(self, line: Line, column: str) -> str:
        """Return `n_normal` or `n_abnormal`, as a range where it differs between networks."""
        counts = sorted(
            {
                int(n)
                for row in self._lines[line]
                if row.metric == AUROC.metric and row.protocol == self.protocol
                if not pd.isna(n := getattr(row, column))
            }
        )
        return DASH.join(str(n) for n in dict.fromkeys(counts[:1] + counts[-1:]))

    def sources(self, line: Line) -> list[str]:
        """Return where the images of a challenge are from: official, generated, part and so on."""
        return list(dict.fromkeys(row.source for row in self._lines[line] if row.source))

    def indicative(self, line: Line) -> bool:
        """Tell whether a challenge was measured on few abnormal images."""
        return any(INDICATIVE in row.note for row in self._lines[line])

    def remarks(self, line: Line) -> list[str]:
        """Return what the notes tell of the images, each remark once."""
        own = (EXACT, HOLE, "no interval", INDICATIVE)
        notes = [
            part
            for row in self._lines[line]
            if row.metric == AUROC.metric and row.protocol == self.protocol
            for part in row.note.split("; ")
            if part and not part.startswith(own)
        ]
        return list(dict.fromkeys(notes))

    def _methods(self, line: Line) -> list[str]:
        return [row.method for row in self._lines[line] if row.metric == AUROC.metric]

    def _reason(self, line: Line, rows: Sequence[Any], method: str) -> str:
        """Return why a cell is empty, from its own rows or from those of the whole challenge."""
        own = [r for r in self._lines.get(line, ()) if r.method in ("", method)]
        whole = [r for r in own if not r.metric]  # what is missing of one measure tells of no other
        for row in [*rows, *whole]:
            if row.note.startswith(HOLE):
                return row.note.removeprefix(HOLE)
        return ""
