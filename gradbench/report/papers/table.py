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
        backbone: [resnet18, resnet34]      # networks side by side, each in lines of its own
        experiment: {CIFAR-10: [ood_cifar10, other]}   # by printed in_dist; by preference
        challenge: {LSUN: [lsun, scenes]}              # by preference
        method: {Baseline: msp}
        note: what the reader must know of this place
        hole: {SVHN: a sentence}            # by printed in_dist: why nothing was measured there
    hole: "method not built: {method}"      # why numbers without a place are not measured
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal

import msgspec
import pandas

from gradbench.config import group_files, load_member
from gradbench.errors import GradbenchError, unknown
from gradbench.report.published import NAMING, published_files, read_published
from gradbench.run.rows import NO_LEVEL
from gradbench.support.typed import check_type

OURS = ("in_dist", "backbone", "experiment", "challenge", "method")
"""Columns of our rows that a place names; the level is the printed one."""
BY_IN_DIST = ("experiment", "hole")
"""What a place names by the printed in-distribution set."""
MEASURED = "measured"
"""The line of a metric that has one measure."""
Names = str | list[str | None] | dict[Any, str | list[str | None] | None] | None


class Measure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The name of a metric in our rows."""

    metric: str
    side: str = ""
    threshold_rule: str = ""


class PrintedMetric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A printed metric: its measures by the name of their line."""

    title: str = ""
    measures: dict[str, Measure] = {}
    definition: str = ""
    compared: bool = True  # False for a deviation: less of it is not better

    @property
    def comparable(self) -> bool:
        """Whether the convention of the print is known, so that a difference is fair."""
        return self.compared and len(self.measures) == 1


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where numbers are measured: our names by printed ones."""

    in_dist: Names = None
    backbone: Names = None
    experiment: Names = None
    challenge: Names = None
    method: Names = None
    note: str = ""
    hole: str | dict[str, str] = ""


class TableFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The content of a file, see above."""

    title: str = ""
    layout: dict[Literal["panels", "rows", "columns"], list[Literal[NAMING]]] = {}
    metrics: dict[str, PrintedMetric] = {}
    description: str = ""
    published: str = ""
    compare: tuple[Literal[NAMING], ...] = ("method",)
    protocols: tuple[str, ...] = ("grouped",)
    notes: list[str] = []
    measured: list[Place] = []
    hole: str | None = None


class PaperTable(TableFile, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A paper's table with its numbers.

    Attributes:
        printed: one row per printed number, columns of `published.COLUMNS`, then `group` (a number
            for those that are compared with each other), `detector` (ours, "" for none) and `hole`
            (why it is not measured, "" where it can be).
        places: one row per printed number (`cell`, its row of `printed`) and place where it may be
            measured: `place` (0 is preferred, the same for all backbones), our names of `OURS`,
            `level`, `preferred` (challenge that the place stands in for, "" for the first), `note`
            and `hole`.
    """

    name: str
    printed: Any
    places: Any


def table_files(dirs: Iterable[Path] = ()) -> dict[str, Path]:
    """Return the files of all tables by name; folders named first win."""
    return group_files("table", dirs)


def read_table(name: str, dirs: Iterable[Path] = ()) -> PaperTable:
    """Read a table.

    Raises:
        GradbenchError: for an unknown name, or a file that says something it cannot say.
    """
    files = table_files(dirs)
    content = load_member("table", name, dirs, resolve=False)
    try:
        check_type(content, TableFile, kind="key of a table")
        return _build(name, files[name], msgspec.convert(content, TableFile))
    except GradbenchError as fault:
        raise GradbenchError(f"{files[name]}: {fault}") from fault


def _build(name: str, path: Path, file: TableFile) -> PaperTable:
    for key in ("title", "layout", "metrics"):
        if not getattr(file, key):
            raise GradbenchError(f"the table has no {key}")
    metrics = {
        key: PrintedMetric(
            one.title or key,
            one.measures or {MEASURED: Measure(key)},
            one.definition,
            one.compared,
        )
        for key, one in file.metrics.items()
    }
    layout = {part: file.layout.get(part, []) for part in ("panels", "rows", "columns")}
    several = [key for key, one in metrics.items() if len(one.measures) > 1]
    if several and "metric" in layout["columns"]:
        raise GradbenchError(f"{several[0]} takes several lines: metric must not be a column")
    printed = _printed(name, path, file.published or name)
    missing = sorted(set(printed["metric"]) - set(metrics))
    if missing:
        raise GradbenchError(f"metrics names no {', '.join(missing)}, which is printed")
    if printed.duplicated([column for part in layout.values() for column in part]).any():
        raise GradbenchError("layout puts several numbers in one cell: name more columns")
    places = _places(printed, file.measured, file.hole)
    shared = [column for column in NAMING if column not in file.compare]
    printed["group"] = printed.groupby(shared, sort=False).ngroup()
    printed["detector"] = places.groupby("cell")["method"].first().reindex(printed.index).fillna("")
    printed["hole"] = [
        "" if one["detector"] else (file.hole or "").format(**one)
        for one in printed.to_dict("records")
    ]
    fields = msgspec.structs.asdict(file) | {"layout": layout, "metrics": metrics}
    return PaperTable(**fields, name=name, printed=printed, places=places)


def _printed(name: str, path: Path, file: str) -> pandas.DataFrame:
    """Return the printed numbers of a table."""
    beside, known = path.with_name(f"{file}.csv"), published_files()
    if not beside.is_file() and file not in known:
        raise unknown("file of published numbers", file, known)
    numbers = read_published(beside if beside.is_file() else known[file])
    own = numbers[numbers["table"] == name].reset_index(drop=True)
    if own.empty:
        raise GradbenchError(f"no published number in {file}.csv has the table {name}")
    return own


def _places(
    printed: pandas.DataFrame, measured: Sequence[Place], hole: str | None
) -> pandas.DataFrame:
    """Return the places where each printed number may be measured, see `PaperTable.places`."""
    for one in measured:
        for column in (*OURS, "hole"):  # of a misspelt name nothing would ever be measured
            names = getattr(one, column)
            known = set(printed["in_dist" if column in BY_IN_DIST else column])
            for name in map(str, names) if isinstance(names, Mapping) else ():
                if name not in known:
                    raise unknown(f"printed {column}", name, known)
    rows = []
    for cell, row in printed.iterrows():
        place, preferred, lacking = 0, "", set()
        for one in measured:
            names = {column: _our_names(one, column, row) for column in OURS}
            lacking |= {column for column, values in names.items() if not values}
            networks, method = names["backbone"], names["method"][:1]
            remarks = (one.note, *(_our_names(one, "hole", row) or [""]))
            for in_dist, challenge in product(names["in_dist"], names["challenge"]):
                ours = [*product([in_dist], networks, names["experiment"], [challenge], method)]
                level = row["level"] or NO_LEVEL
                rows += [(cell, place, preferred, *one_of, level, *remarks) for one_of in ours]
                place += bool(ours)
                preferred = preferred or challenge
        if hole is None and not place:
            which = " or the ".join(column for column in OURS if column in lacking) or "place"
            raise GradbenchError(
                f"nothing names the {which} of {row['method']} on {row['challenge']}, nor a hole"
            )
    columns = ("cell", "place", "preferred", *OURS, "level", "note", "hole")
    return pandas.DataFrame(rows, columns=columns)


def _our_names(place: Place, column: str, row: Mapping[str, str]) -> list[str]:
    """Return our names for a printed value, by preference."""
    value = getattr(place, column)
    if isinstance(value, Mapping):
        key = row["in_dist" if column in BY_IN_DIST else column]
        value = {str(printed): ours for printed, ours in value.items()}.get(key)
    listed = value if isinstance(value, list) else [value]
    return [name for name in listed if name is not None]
