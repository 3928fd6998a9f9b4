"""A paper's table: its printed numbers, and what each printed name is called in our rows.

A file `table/NAME.yaml` in `configs/` or in the folder of `--config-dir`:

    title: Out-of-distribution detection
    description: one line for `gradbench tables list`
    published: ood            # NAME.csv beside the file, or one of gradbench/report/published
    layout: {panels: [metric], rows: [in_dist, challenge], columns: [method]}   # printed columns
    compare: [method]         # the best is chosen among these; [method] where left out
    protocols: [grouped]      # accepted ones, the preferred one first; new runs use the first
    metrics:                  # printed metric -> our metric, or several named ones
      auroc: {title: AUROC}
      aupr: {title: AUPR, measures: {in: {metric: aupr, side: in}, ...}, definition: a sentence}
    notes: [sentences on the conventions of the print, misprints and doubts]
    measured:                 # where the numbers are measured here, the preferred place first
      - in_dist: {CIFAR-10: cifar10}        # printed -> ours; one name alone stands for all
        backbone: resnet18
        experiment: {CIFAR-10: [ood_cifar10, other]}   # by printed in_dist; by preference
        challenge: {LSUN: [lsun, scenes]}
        method: {Baseline: msp}
        note: what the reader must know of this place
    hole: "method not built: {method}"      # why numbers without a place are not measured
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradbench.config import group_files
from gradbench.errors import GradbenchError, unknown
from gradbench.report.published import NAMING, published_files, read_published
from gradbench.run.rows import NO_LEVEL

if TYPE_CHECKING:
    import pandas

KEYS = (
    *("title", "description", "published", "layout", "compare", "protocols", "metrics", "notes"),
    *("measured", "hole"),
)
DIRECTIONS = ("panels", "rows", "columns")
OURS = ("in_dist", "backbone", "experiment", "challenge", "method")
"""Columns of our rows that a place names; the level is the printed one."""
MEASURE = ("metric", "side", "threshold_rule")
MEASURED = "measured"
"""The line of a metric that has one measure."""


@dataclass(frozen=True)
class PrintedMetric:
    """A printed metric.

    Attributes:
        title: above its column or panel.
        measures: name of the line -> (metric, side, threshold rule) in our rows.
        definition: a sentence.
    """

    title: str
    measures: Mapping[str, tuple[str, str, str]]
    definition: str = ""

    @property
    def comparable(self) -> bool:
        """Whether the convention of the print is known, so that a difference is fair."""
        return len(self.measures) == 1


@dataclass(frozen=True)
class PaperTable:
    """A paper's table.

    Attributes:
        name: of its file.
        title: above it.
        description: one line.
        layout: printed columns that make panels, rows and columns.
        compare: printed columns that the best of a group is chosen among.
        protocols: accepted ones, by preference.
        metrics: by printed name.
        notes: sentences on the print.
        printed: one row per printed number, columns of `published.COLUMNS`, then `group` (a number
            for those that are compared with each other), `detector` (ours, "" for none) and `hole`
            (why it is not measured, "" where it can be).
        places: one row per printed number (`cell`, its row of `printed`) and place where it may be
            measured: `place` (0 is preferred), our names of `OURS`, `level`, `preferred` (challenge
            that the place stands in for, "" for the first) and `note`.
    """

    name: str
    title: str
    description: str
    layout: Mapping[str, tuple[str, ...]]
    compare: tuple[str, ...]
    protocols: tuple[str, ...]
    metrics: Mapping[str, PrintedMetric]
    notes: tuple[str, ...]
    printed: pandas.DataFrame
    places: pandas.DataFrame


def table_files(dirs: Iterable[Path] = ()) -> dict[str, Path]:
    """Return the files of all tables by name; folders named first win."""
    return group_files("table", dirs)


def read_table(name: str, dirs: Iterable[Path] = ()) -> PaperTable:
    """Read a table.

    Raises:
        GradbenchError: for an unknown name, or a file that says something it cannot say.
    """
    files = table_files(dirs)
    if name not in files:
        raise unknown("table", name, files)
    try:
        return _build(name, files[name])
    except GradbenchError as fault:
        raise GradbenchError(f"{files[name]}: {fault}") from fault


def _build(name: str, path: Path) -> PaperTable:
    content = _content(path)
    _check_keys("key of a table", content, KEYS)
    for key in ("title", "layout", "metrics"):
        if not content.get(key):
            raise GradbenchError(f"the table has no {key}")
    layout = {d: tuple(content["layout"].get(d, ())) for d in DIRECTIONS}
    compare = tuple(content.get("compare", ("method",)))
    laid_out = [column for columns in layout.values() for column in columns]
    _check_keys("column of published numbers", [*laid_out, *compare], NAMING)
    metrics = {key: _metric(key, value) for key, value in content["metrics"].items()}
    several = [key for key, one in metrics.items() if not one.comparable]
    if several and "metric" in layout["columns"]:
        raise GradbenchError(f"{several[0]} takes several lines: metric must not be a column")
    printed = _printed(name, path, content.get("published", name))
    missing = sorted(set(printed["metric"]) - set(metrics))
    if missing:
        raise GradbenchError(f"metrics names no {', '.join(missing)}, which is printed")
    if printed.duplicated(laid_out).any():
        raise GradbenchError("layout puts several numbers in one cell: name more columns")
    places = _places(printed, content.get("measured", ()), content.get("hole"))
    shared = [column for column in NAMING if column not in compare]
    printed["group"] = printed.groupby(shared, sort=False).ngroup()
    printed["detector"] = places.groupby("cell")["method"].first().reindex(printed.index).fillna("")
    hole = content.get("hole", "")
    printed["hole"] = [
        "" if one["detector"] else hole.format(**one) for one in printed.to_dict("records")
    ]
    return PaperTable(
        name,
        content["title"],
        content.get("description", ""),
        layout,
        compare,
        tuple(content.get("protocols", ("grouped",))),
        metrics,
        tuple(content.get("notes", ())),
        printed,
        places,
    )


def _content(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as fault:
        raise GradbenchError(f"not valid YAML: {' '.join(str(fault).split())}") from fault
    if not isinstance(content, dict):
        raise GradbenchError("holds no mapping of names to values")
    return content


def _check_keys(kind: str, names: Iterable[Any], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise unknown(kind, str(name), known)


def _metric(name: str, content: Mapping[str, Any]) -> PrintedMetric:
    _check_keys(f"key of metric {name}", content, ("title", "measures", "definition"))
    measures = content.get("measures", {MEASURED: {"metric": name}})
    for measure in measures.values():
        _check_keys(f"key of a measure of {name}", measure, MEASURE)
    lines = {line: tuple(one.get(key, "") for key in MEASURE) for line, one in measures.items()}
    return PrintedMetric(content.get("title", name), lines, content.get("definition", ""))


def _printed(name: str, path: Path, file: str) -> pandas.DataFrame:
    """Return the printed numbers of a table."""
    beside, known = path.with_name(f"{file}.csv"), published_files()
    if not beside.is_file() and file not in known:
        raise unknown("file of published numbers", file, known)
    numbers = read_published(beside if beside.is_file() else known[file])
    kept = numbers[numbers["table"] == name].reset_index(drop=True)
    if kept.empty:
        raise GradbenchError(f"no published number in {file}.csv has the table {name}")
    return kept


def _places(printed: pandas.DataFrame, measured: Iterable[Mapping], hole: str | None):
    """Return the places where each printed number may be measured, see `PaperTable.places`."""
    import pandas

    for one in measured:
        _check_keys("key of a place", one, (*OURS, "note"))
        _check_printed(printed, one)
    found = []
    for cell, row in printed.iterrows():
        place, preferred, lacking = 0, "", set()
        for one in measured:
            names = {column: _ours(one, column, row) for column in OURS}
            lacking |= {column for column, values in names.items() if not values}
            experiments, methods = names["experiment"], names["method"]
            for choice in product(names["in_dist"], names["backbone"], names["challenge"]):
                for experiment, method in product(experiments, methods[:1]):
                    ours = dict(zip(OURS, (*choice[:2], experiment, choice[2], method)))
                    about = {"level": row["level"] or NO_LEVEL, "note": one.get("note", "")}
                    found.append({"cell": cell, "place": place, "preferred": preferred}
                                 | ours | about)  # fmt: skip
                place += bool(experiments and methods)
                preferred = preferred or choice[2]
        if hole is None and not place:
            which = " or the ".join(column for column in OURS if column in lacking) or "place"
            raise GradbenchError(
                f"nothing names the {which} of {row['method']} on {row['challenge']}, nor a hole"
            )
    columns = ("cell", "place", "preferred", *OURS, "level", "note")
    return pandas.DataFrame(found, columns=columns)


def _check_printed(printed: pandas.DataFrame, place: Mapping[str, Any]) -> None:
    """Refuse a printed name that is misspelt: nothing would ever be measured for it."""
    for column in OURS:
        if isinstance(names := place.get(column), Mapping):
            known = printed["in_dist" if column == "experiment" else column].unique()
            _check_keys(f"printed {column}", map(str, names), known)


def _ours(place: Mapping[str, Any], column: str, row: Mapping[str, str]) -> list[str]:
    """Return our names for a printed value, by preference."""
    value = place.get(column)
    if isinstance(value, Mapping):
        key = row["in_dist" if column == "experiment" else column]
        value = {str(printed): ours for printed, ours in value.items()}.get(key)
    listed = value if isinstance(value, list) else [value]
    return [str(name) for name in listed if name is not None]
