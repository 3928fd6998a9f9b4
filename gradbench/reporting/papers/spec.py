"""What a paper's table holds and how each of its cells is measured, read from a YAML file.

A file `table/NAME.yaml` in `configs/` or in the folder of `--config-dir`:

    title: Out-of-distribution detection
    description: one line for `gradbench tables list`
    published: ood            # NAME.csv beside the file, or one of gradbench/reporting/published
    where: {table: ood}       # the rows of that file; {table: NAME of this file} where left out
    layout: {panels: [metric], rows: [in_dist, challenge], columns: [method]}
    compare: [method]         # what the best is chosen among; [method] where left out
    protocols: [grouped]      # accepted, the preferred one first; runs are made with the first
    metrics:                  # printed metric -> our measure, or several by name
      auroc: {title: AUROC, measure: {metric: auroc}}
    printed: [sentences on the conventions of the print]
    remarks: [misprints and doubts]
    cells:                    # rules; later ones change what earlier ones say
      - when: {in_dist: CIFAR-10}          # printed values, or lists of them; all cells without
        experiment: [ood_cifar10, other]   # the preferred one first
        challenge: {LSUN: [lsun, scenes]}  # by the printed value; lists by preference
        method: {Baseline: msp}
        either: [{...}, {...}]             # whole alternatives, by preference
        hole: "method not built: {method}" # why these cells are not measured
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from gradbench.config import group_files
from gradbench.errors import GradbenchError, unknown
from gradbench.reporting import published
from gradbench.reporting.papers.measures import Metric, metric
from gradbench.reporting.published import NAMING, Printed

KEYS = (
    *("title", "description", "published", "where", "layout", "compare", "protocols", "metrics"),
    *("printed", "remarks", "cells"),
)
PLACED = ("in_dist", "backbone", "challenge", "level")
RULE = ("when", "experiment", *PLACED, "method", "either", "hole", "stand_in")
DIRECTIONS = ("panels", "rows", "columns")


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


@dataclass(frozen=True)
class Table:
    """A paper's table.

    Attributes:
        name: of its file.
        title: above it.
        description: one line.
        layout: printed columns that make panels, rows and columns.
        compare: printed columns that the best of a group is chosen among.
        protocols: accepted ones, by preference.
        metrics: by printed name.
        printed: sentences on the conventions of the print.
        remarks: misprints and doubts.
        wanted: its cells, in the order of the print.
    """

    name: str
    title: str
    description: str
    layout: Mapping[str, tuple[str, ...]]
    compare: tuple[str, ...]
    protocols: tuple[str, ...]
    metrics: Mapping[str, Metric]
    printed: tuple[str, ...]
    remarks: tuple[str, ...]
    wanted: tuple[Wanted, ...]

    def group(self, one: Printed) -> tuple[str, ...]:
        """Return what a number shares with those that it is compared with."""
        return tuple(getattr(one, name) for name in NAMING if name not in self.compare)


def table_files(dirs: Iterable[Path] = ()) -> dict[str, Path]:
    """Return the files of all tables by name; folders named first win."""
    return group_files("table", dirs)


def read_table(name: str, dirs: Iterable[Path] = ()) -> Table:
    """Read a table.

    Raises:
        GradbenchError: for an unknown name, or a file that says something it cannot say.
    """
    files = table_files(dirs)
    if name not in files:
        raise unknown("table", name, files)
    try:
        return _read(name, files[name])
    except GradbenchError as fault:
        raise GradbenchError(f"{files[name]}: {fault}") from fault


def _read(name: str, path: Path) -> Table:
    content = _content(path)
    for key in content:
        if key not in KEYS:
            raise unknown("key of a table", str(key), KEYS)
    for key in ("title", "layout", "metrics", "cells"):
        if not content.get(key):
            raise GradbenchError(f"the table has no {key}")
    layout = {d: tuple(content["layout"].get(d, ())) for d in DIRECTIONS}
    compare = tuple(content.get("compare", ("method",)))
    for column in (*(c for part in layout.values() for c in part), *compare):
        _known(column)
    metrics = {key: metric(key, value) for key, value in content["metrics"].items()}
    several = [m for m, what in metrics.items() if not what.difference]
    if several and "metric" in layout["columns"]:
        raise GradbenchError(f"{several[0]} takes several lines: metric must not be a column")
    rules = content["cells"]
    for rule in rules:
        for key in rule:
            if key not in RULE:
                raise unknown("key of a cell's rule", str(key), RULE)
        for column in rule.get("when", {}):
            _known(column)
    numbers = _numbers(name, path, content)
    missing = {one.metric for one in numbers} - metrics.keys()
    if missing:
        raise GradbenchError(f"metrics names no {', '.join(sorted(missing))}, which is printed")
    told_apart = {tuple(getattr(one, c) for part in layout.values() for c in part)
                  for one in numbers}  # fmt: skip
    if len(told_apart) < len(numbers):
        raise GradbenchError("layout puts several numbers in one cell: name more columns")
    return Table(
        name,
        content["title"],
        content.get("description", ""),
        layout,
        compare,
        tuple(content.get("protocols", ("grouped",))),
        metrics,
        tuple(content.get("printed", ())),
        tuple(content.get("remarks", ())),
        tuple(_wanted(one, rules, metrics) for one in numbers),
    )


def _content(path: Path) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as fault:
        raise GradbenchError(f"not valid YAML: {' '.join(str(fault).split())}") from fault
    if not isinstance(content, dict):
        raise GradbenchError("holds no mapping of names to values")
    return content


def _known(column: str) -> None:
    if column not in NAMING:
        raise unknown("column of published numbers", str(column), NAMING)


def _numbers(name: str, path: Path, content: Mapping[str, Any]) -> list[Printed]:
    """Return the printed numbers of a table."""
    file = str(content.get("published", name))
    beside = path.with_name(f"{file}.csv")
    there = published.files()
    if not beside.is_file() and file not in there:
        raise unknown("file of published numbers", file, there)
    where = content.get("where", {"table": name})
    for column in where:
        _known(column)
    numbers = published.load(beside if beside.is_file() else there[file])
    kept = [one for one in numbers if _fits(one, where)]
    if not kept:
        raise GradbenchError(f"no published number in {file}.csv has {where}")
    return kept


def _fits(one: Printed, when: Mapping[str, Any]) -> bool:
    """Tell whether a number has the values, or one of the listed values, that a rule names."""
    return all(getattr(one, c) in map(str, _listed(values)) for c, values in when.items())


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def _wanted(one: Printed, rules: Sequence[Mapping], metrics: Mapping[str, Metric]) -> Wanted:
    """Apply the rules to a printed number."""
    said: dict[str, Any] = {"level": one.level}
    for rule in rules:
        if _fits(one, rule.get("when", {})):
            said |= {key: value for key, value in rule.items() if key != "when"}
    detector = _own(said, "method", one)
    places: list[Place] = []
    for alternative in said.get("either", [{}]):
        places += _places(one, said | alternative, places)
    hole = said.get("hole", "").format(**one._asdict())
    if not hole and (not detector or not places):
        raise GradbenchError(f"no rule says how {one.method} on {one.challenge} is measured")
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
