"""What a paper's table holds and how each of its cells is measured, read from a YAML file.

A file `table/NAME.yaml` in `configs/` or in the folder of `--config-dir`:

    title: Out-of-distribution detection
    description: one line for `gradbench tables list`
    published: ood            # NAME.csv beside the file, or one of gradbench/report/published
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

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gradbench.config import group_files
from gradbench.errors import GradbenchError, unknown
from gradbench.report import published
from gradbench.report.papers.measures import Metric, metric
from gradbench.report.papers.rules import Wanted, check_rule, fits, known_column, wanted
from gradbench.report.published import NAMING, Printed

KEYS = (
    *("title", "description", "published", "where", "layout", "compare", "protocols", "metrics"),
    *("printed", "remarks", "cells"),
)
DIRECTIONS = ("panels", "rows", "columns")


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
        known_column(column)
    metrics = {key: metric(key, value) for key, value in content["metrics"].items()}
    several = [m for m, what in metrics.items() if not what.difference]
    if several and "metric" in layout["columns"]:
        raise GradbenchError(f"{several[0]} takes several lines: metric must not be a column")
    rules = content["cells"]
    for rule in rules:
        check_rule(rule)
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
        tuple(wanted(one, rules, metrics) for one in numbers),
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


def _numbers(name: str, path: Path, content: Mapping[str, Any]) -> list[Printed]:
    """Return the printed numbers of a table."""
    file = str(content.get("published", name))
    beside = path.with_name(f"{file}.csv")
    there = published.files()
    if not beside.is_file() and file not in there:
        raise unknown("file of published numbers", file, there)
    where = content.get("where", {"table": name})
    for column in where:
        known_column(column)
    numbers = published.load(beside if beside.is_file() else there[file])
    kept = [one for one in numbers if fits(one, where)]
    if not kept:
        raise GradbenchError(f"no published number in {file}.csv has {where}")
    return kept
