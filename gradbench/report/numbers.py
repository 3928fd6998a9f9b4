"""Numbers as they stand in tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

DASH = "–"
EXACT = "exact"
"""Word in a row's note that tells of an exact bound instead of a bootstrap."""


def percent(value: float) -> str:
    """Return a percentage with one decimal, and with more where it would read as 0 or 100.

    Only what is 0 or 100 is written as such.

    >>> percent(87.449), percent(99.96), percent(100.0), percent(0.04)
    ('87.4', '99.96', '100', '0.04')
    """
    value = round(value, 6)
    if value in (0, 100):
        return f"{value:.0f}"
    for places in range(1, 6):
        text = f"{value:.{places}f}"
        if float(text) not in (0, 100):
            break
    return text


def accuracies(about: Mapping[str, Any]) -> str:
    """Return the test accuracy of a run's networks, and of how many images where that is told.

    >>> accuracies({"accuracy": {"0": 0.92, "1": 0.934}, "n_accuracy": 2000})
    '92.0, 93.4 % of 2,000 images'
    """
    values = ", ".join(percent(100 * value) for value in about["accuracy"].values())
    count = about.get("n_accuracy")
    return f"{values} %" + (f" of {count:,} images" if count else "")


def significant(value: float) -> str:
    """Return a number that is no percentage with three significant digits.

    >>> significant(0.05), significant(1.23456), significant(0)
    ('0.05', '1.23', '0')
    """
    places = 0 if value == 0 else max(0, 2 - int(f"{value:.2e}".split("e")[1]))
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def count(value: float) -> str:
    """Return a number of images, whole where it is no mean of several networks.

    >>> count(1000), count(918.5)
    ('1000', '918.5')
    """
    return f"{value:.1f}".removesuffix(".0")


def with_interval(value: float, lo: float, hi: float, note: str = "") -> str:
    """Return a percentage with its interval; an exact bound below 100 as `100 (≥ 98.7)`.

    >>> with_interval(98.12, 97.6, 98.5), with_interval(100, 98.71, 100, "exact bound")
    ('98.1 97.6–98.5', '100 (≥ 98.7)')
    """
    if isnan(lo) or isnan(hi) or lo == hi:
        return percent(value)
    if hi == 100 and EXACT in note:
        return f"{percent(value)} (≥ {percent(lo)})"
    return f"{percent(value)} {percent(lo)}{DASH}{percent(hi)}"


def with_range(values: Sequence[float], show=percent) -> str:
    """Return the mean of several networks' values, and their range in parentheses.

    >>> with_range([97.0, 98.0]), with_range([97.0])
    ('97.5 (97.0–98.0)', '97.0')
    """
    mean = show(sum(values) / len(values))
    if len(values) == 1:
        return mean
    return f"{mean} ({show(min(values))}{DASH}{show(max(values))})"
