"""The tidy row: one measured number with everything that names it."""

from __future__ import annotations

import csv
import gzip
import io
import math
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradbench.errors import GradbenchError, unknown
from gradbench.support.files import Damaged, read_bytes
from gradbench.support.text import for_spreadsheet, from_spreadsheet

if TYPE_CHECKING:
    import pandas

    from gradbench.statistics.intervals import MetricEstimate

COLUMNS = (
    *("experiment", "backbone", "width", "in_dist", "role", "challenge_set", "challenge", "level"),
    *("source", "method", "compared_with", "variant", "supervision", "clean_seen", "protocol"),
    *("fold", "train_seed", "detector_seed", "split_seed", "challenge_seed"),
    *("metric", "side", "threshold_rule", "value", "lo", "hi", "p", "p_holm", "p_folds", "test"),
    *("n_normal", "n_abnormal", "unit", "note", "n_listed", "n_at_hand", "matched"),
)
LISTED = COLUMNS[-3:]
"""Of a published list of images: their number, how many of them are at hand, and how they were
matched with it (`image_lists`). Files of runs without such lists do not have these columns."""
CHANCES = ("p", "p_holm", "p_folds")
"""Probabilities by a test: as it gave them, after Holm, and of the t-test over folds."""
REAL = ("value", "lo", "hi", *CHANCES)
WHOLE = (
    *("width", "train_seed", "detector_seed", "split_seed", "challenge_seed"),
    *("n_normal", "n_abnormal", "n_listed", "n_at_hand"),
)
LARGEST = 2**28
"""Bytes of a file that is read, at most."""
DIGITS = 6
"""Decimals of the real numbers; significant digits of the probabilities."""
FEW = 500
"""A row with fewer abnormal images is marked as indicative."""
NO_CONTROLS = ("", "main", "transfer", "network", "attack")
"""Values of the column `role` that are no controls: a detector on a challenge; one fitted on a
challenge and measured on another; the accuracy of f; the outcome of an attack."""
FILES = ("results.csv", "results.csv.gz")
"""Names of a file of rows in the folder of a run; kept results are compressed."""
MEAN = "mean"
"""In the column `challenge`, `mean:SET`: over the challenges (and levels) of a challenge_set."""
NO_LEVEL = "0"
"""In the column `level`: the challenge has no levels. An empty cell would be no number to pandas,
whose pivots and groups leave such rows out."""
NETWORKS = "networks"
"""In the column `fold`: over all networks, whose `train_seed` is then empty."""
DEVIATION = "_deviation"
"""Ending in the column `metric`: the population deviation over the networks."""
INDICATIVE = f"indicative: fewer than {FEW} abnormal images"
_SAID = (*REAL, "test", "n_normal", "n_abnormal", "unit", "note", *LISTED)
NAMING = tuple(c for c in COLUMNS if c not in _SAID)
"""The columns that name a number."""


def mean_of(challenge_set: str) -> str:
    """Return what the mean over a challenge_set is called in the column `challenge`."""
    return f"{MEAN}:{challenge_set}"


def is_mean(challenge: str) -> bool:
    """Tell whether a name in the column `challenge` is that of a mean."""
    return challenge.partition(":")[0] == MEAN


def rows_file(folder: str | os.PathLike) -> Path:
    """Return the file of rows in a run's folder: `results.csv`, or `results.csv.gz` if kept so."""
    plain, compressed = (Path(folder) / name for name in FILES)
    return compressed if compressed.is_file() and not plain.is_file() else plain


def row(**values: Any) -> dict[str, Any]:
    """Return a row with all columns in order, empty (None) where nothing is given."""
    for name in values:
        if name not in COLUMNS:
            raise unknown("column", name, COLUMNS)
    return {name: values.get(name) for name in COLUMNS}


def measured_row(measured: MetricEstimate, few_noted: bool = True, **values: Any) -> dict[str, Any]:
    """Return the row of a measured number in percent; a `note` in `values` stands before its own.

    The note says that a number from fewer than 500 abnormal images is indicative, if `few_noted`.
    """
    few = few_noted and measured.n_abnormal < FEW and not math.isnan(measured.value)
    notes = (values.pop("note", None), INDICATIVE if few else "", measured.note)
    names = ("metric", "side", "threshold_rule", "n_normal", "n_abnormal")
    return row(
        **values,
        **{name: getattr(measured, name) for name in names},
        **{name: 100 * getattr(measured, name) for name in ("value", "lo", "hi")},
        unit="percent",
        note="; ".join(note for note in notes if note),
    )


def hole(reason: str, **values: Any) -> dict[str, Any]:
    """Return the row of a number that could not be measured, for the given reason."""
    return row(**values, note=f"not measured: {reason}")


def frame(rows: Iterable[Mapping[str, Any]]) -> pandas.DataFrame:
    """Return rows as a table in an order of their own.

    Rows are sorted by the columns that name a number, left to right, numbers before words and both
    ascending, so equal rows give equal tables whatever order they were measured in.

    Returns:
        The columns of `REAL` as float64 rounded to 6 decimals (probabilities to 6 digits), those of
        `WHOLE` as Int64, both with missing values; all others as str, "" where empty. A level is
        str too: "1", and "0" where there are no levels.

    Raises:
        GradbenchError: for an unknown column, or a value that is no number where one is due.
    """
    cells = [{c: _cell(c, v) for c, v in row(**given).items()} for given in rows]
    cells.sort(key=lambda one: [_rank(one[name]) for name in NAMING])
    return _typed({name: [one[name] for one in cells] for name in COLUMNS})


def _typed(columns: Mapping[str, list]) -> pandas.DataFrame:
    """Return columns of cells, as `_cell` gives them, as a table of the types of `frame`."""
    import pandas

    kinds = {c: "float64" if c in REAL else "Int64" if c in WHOLE else "str" for c in COLUMNS}
    return pandas.DataFrame(
        {name: pandas.Series(cells, dtype=kinds[name]) for name, cells in columns.items()}
    )


def write_csv(table: pandas.DataFrame, path: str | os.PathLike) -> None:
    """Write a table of `frame` so that equal tables are equal byte for byte.

    UTF-8, LF line ends, numbers as Python writes them after rounding to 6 decimals; compressed
    without a time where the name ends in `.gz`. Written beside its place, synced and renamed: a
    reader sees the old file or the new one.

    Raises:
        GradbenchError: if the file cannot be written.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    texts = {c: table[c].map(for_spreadsheet) for c in COLUMNS if c not in REAL + WHOLE}
    listed = table["n_listed"].notna().any()
    columns = [name for name in COLUMNS if listed or name not in LISTED]
    text = table.assign(**texts)[columns].to_csv(index=False, lineterminator="\n").encode()
    try:
        with open(beside, "wb") as file:
            file.write(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise GradbenchError(f"cannot write {path}: {error.strerror}") from error


def read_csv(path: str | os.PathLike) -> pandas.DataFrame:
    """Return the table that `write_csv` wrote.

    Raises:
        GradbenchError: if the file cannot be read, has other columns, a row that is longer or
            shorter, or no number where one is due.
    """
    path = Path(path)
    try:
        text = _plain(read_bytes(path, LARGEST)).decode("utf-8")
        header, *lines = [*csv.reader(io.StringIO(text, newline=""), strict=True)] or [[]]
    except (Damaged, UnicodeDecodeError, csv.Error) as error:
        raise GradbenchError(f"cannot read {path}: {error}") from error
    if tuple(header) not in (COLUMNS, COLUMNS[: -len(LISTED)]):
        wrong = sorted(set(header) ^ set(COLUMNS)) or ["their order"]
        raise GradbenchError(
            f"{path} is no table of results of this gradbench (the same command, run again, makes "
            f"one): columns that differ: {', '.join(wrong)}"
        )
    for number, line in enumerate(lines, 1):
        if len(line) != len(header):
            raise GradbenchError(f"{path} is damaged: row {number} has not {len(header)} columns")
    texts_of = dict(zip(header, zip(*lines)))
    columns = {}
    try:
        for name in COLUMNS:
            texts = texts_of.get(name, [""] * len(lines))
            # Most texts stand in a column many times: each is read once.
            values = {text: _cell(name, from_spreadsheet(text)) for text in set(texts)}
            columns[name] = [values[text] for text in texts]
    except GradbenchError as error:
        raise GradbenchError(f"{path} is damaged: {error}") from error
    return _typed(columns)


def _plain(found: bytes) -> bytes:
    """Return the content of a file that may be compressed, as it says in its first bytes."""
    if found[:2] != b"\x1f\x8b":
        return found
    try:
        with gzip.open(io.BytesIO(found)) as stream:
            text = stream.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as fault:
        raise Damaged(f"its compression is damaged ({fault})") from fault
    if len(text) > LARGEST:
        raise Damaged(f"it is larger than {LARGEST // 2**20} MiB")
    return text


def _cell(column: str, value: Any) -> Any:
    """Return a value in the type of its column, None (or "" for text) where it is empty."""
    # By their text, so that pandas' and numpy's own missing values need no import.
    empty = value is None or str(value) in ("", "nan", "<NA>")
    if column not in REAL and column not in WHOLE:
        if empty:
            return NO_LEVEL if column == "level" else ""
        return f"{value:.12g}" if isinstance(value, float) else str(value)
    if empty:
        return None
    try:
        if column in CHANCES:
            return float(f"{float(value):.{DIGITS}g}")
        if column in REAL:
            # The added zero turns -0.0 into 0.0.
            return round(float(value), DIGITS) + 0.0
        if float(value) == int(value) and abs(int(value)) < 2**63:
            return int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    kind = "a number" if column in REAL else "a whole number"
    raise GradbenchError(f"column {column} holds '{str(value)[:40]}', which is not {kind}")


def _rank(value: Any) -> tuple[int, float, str]:
    """Return a key that sorts empty, then numbers, then words."""
    if value is None or value == "":
        return 0, 0.0, ""
    try:
        number = float(value)
    except ValueError:
        return 2, 0.0, value
    return (1, number, str(value)) if math.isfinite(number) else (2, 0.0, str(value))
