"""Rules of a table's file: where and with which detector a printed number is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from gradbench.errors import GradbenchError, unknown
from gradbench.report.papers.measures import Metric
from gradbench.report.published import NAMING, Printed

PLACED = ("in_dist", "backbone", "challenge", "level")
RULE = ("when", "experiment", *PLACED, "method", "either", "hole", "stand_in")


@dataclass(frozen=True)
class Place:
    """Where a cell is measured, whatever the detector.

    Attributes:
        experiments: that hold it, the preferred one first.
        in_dist: in-distribution set in rows.
        backbone: network in rows.
        challenge: in rows.
        level: in rows, "" where there are none.
        preferred: what would be measured if all were at hand, "" if this is that.
        stand_in: what the reader must know of this alternative.
    """

    experiments: tuple[str, ...]
    in_dist: str
    backbone: str
    challenge: str
    level: str
    preferred: str = ""
    stand_in: str = ""


@dataclass(frozen=True)
class Wanted:
    """A printed number and how it is measured.

    Attributes:
        printed: the number.
        places: where, by preference.
        detector: our name of the method, "" where there is none.
        hole: why it is not measured, "" where it can be.
        metric: of the number.
    """

    printed: Printed
    places: tuple[Place, ...]
    detector: str
    hole: str
    metric: Metric


def check_rule(rule: Mapping[str, Any]) -> None:
    """Raise the error for a rule that says what no rule can."""
    for key in rule:
        if key not in RULE:
            raise unknown("key of a cell's rule", str(key), RULE)
    for column in rule.get("when", {}):
        known_column(column)
    for alternative in rule.get("either", ()):
        check_rule(alternative)


def known_column(column: str) -> None:
    """Raise the error for a name that is no column of published numbers."""
    if column not in NAMING:
        raise unknown("column of published numbers", str(column), NAMING)


def fits(one: Printed, when: Mapping[str, Any]) -> bool:
    """Tell whether a number has the values, or one of the listed values, that a rule names."""
    return all(getattr(one, c) in map(str, _listed(values)) for c, values in when.items())


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def wanted(one: Printed, rules: Sequence[Mapping], metrics: Mapping[str, Metric]) -> Wanted:
    """Apply the rules to a printed number."""
    said: dict[str, Any] = {"level": one.level}
    for rule in rules:
        if fits(one, rule.get("when", {})):
            said |= {key: value for key, value in rule.items() if key != "when"}
    detector = _own(said, "method", one)
    places: list[Place] = []
    for alternative in said.get("either", [{}]):
        places += _places(one, said | alternative, places)
    hole = said.get("hole", "").format(**one._asdict())
    if not hole and (not detector or not places):
        lacking = [c for c in ("experiment", *PLACED, "method") if not _own(said, c, one)]
        raise GradbenchError(
            f"no rule gives the {' or the '.join(lacking)} of {one.method} on {one.challenge}"
        )
    return Wanted(one, tuple(places), str(detector[0]) if detector else "", hole,
                  metrics[one.metric])  # fmt: skip


def _places(one: Printed, said: Mapping[str, Any], before: Sequence[Place]) -> list[Place]:
    """Return the places of one alternative, by preference."""
    experiments = tuple(_own(said, "experiment", one))
    choices = [_own(said, column, one) for column in PLACED]
    found: list[Place] = []
    for values in product(*choices) if experiments else ():
        first = [*before, *found][:1]
        preferred = first[0].challenge if first else ""
        found.append(Place(experiments, *map(str, values), preferred, said.get("stand_in", "")))
    return found


def _own(said: Mapping[str, Any], column: str, one: Printed) -> Sequence[Any]:
    """Return our names for a printed value, by preference; a mapping goes by the printed value."""
    value = said.get(column)
    if isinstance(value, Mapping):
        key = one.in_dist if column == "experiment" else getattr(one, column)
        value = {str(k): v for k, v in value.items()}.get(key)
    return [] if value is None else _listed(value)
