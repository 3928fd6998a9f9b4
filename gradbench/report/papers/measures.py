"""Metrics of the papers' tables in terms of the measures that rows hold, and their units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gradbench.errors import GradbenchError, unknown
from gradbench.report.numbers import number

MEASURED = "measured"
NAMES = ("metric", "side", "threshold_rule")


@dataclass(frozen=True)
class Metric:
    """A printed metric.

    Attributes:
        title: above its column or panel.
        lines: name of the line -> (metric, side, threshold rule) in rows.
        difference: whether the convention of the print is known, so that a difference is fair.
        told: how it is defined.
    """

    title: str
    lines: Mapping[str, tuple[str, str, str]]
    difference: bool
    told: str = ""

    @property
    def is_auroc(self) -> bool:
        """Whether it is the measure that detectors are compared by with a test."""
        return dict(self.lines) == {MEASURED: ("auroc", "", "")}


def metric(name: str, content: Mapping[str, Any]) -> Metric:
    """Read a metric of a table's file.

    Raises:
        GradbenchError: for an unknown key.
    """
    keys = ("title", "measure", "measures", "told")
    for key in content:
        if key not in keys:
            raise unknown(f"key of metric {name}", str(key), keys)
    if "measure" in content and "measures" in content:
        raise GradbenchError(f"metric {name}: either one measure or several measures")
    several = content.get("measures")
    given = several or {MEASURED: content.get("measure", {"metric": name})}
    return Metric(
        content.get("title", name),
        {line: _measure(name, measure) for line, measure in given.items()},
        not several,
        content.get("told", ""),
    )


def _measure(name: str, content: Mapping[str, str]) -> tuple[str, str, str]:
    for key in content:
        if key not in NAMES:
            raise unknown(f"key of a measure of {name}", str(key), NAMES)
    return content["metric"], content.get("side", ""), content.get("threshold_rule", "")


def comparable(unit: str) -> bool:
    """Tell whether a printed unit counts in points, hundredths of the whole."""
    return unit in ("percent", "fraction")


def points(value: float, unit: str) -> float:
    """Return a printed value in percent."""
    return 100 * value if unit == "fraction" else value


def show(value: float, unit: str) -> str:
    """Return a value in percent as the print shows it.

    >>> show(87.449, "percent"), show(87.449, "fraction")
    ('87.4', '0.874')
    """
    if unit != "fraction":
        return number(value)
    return f"{value / 100:.3f}"


def show_difference(value: float, unit: str) -> str:
    """Return a difference in percent as signed text.

    >>> show_difference(-2.04, "percent"), show_difference(0.01, "percent")
    ('−2.0', '0.0')
    >>> show_difference(2.04, "fraction")
    '+0.020'
    """
    text = f"{abs(value) / 100:.3f}" if unit == "fraction" else f"{abs(value):.1f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else "−") + text
