r"""The folder of a finished run: its `run.json`, and its files, checked before they are read.

`run.json` lists size and SHA-256 of every file that the run wrote. If a script made one again,

    python -c "import sys; from gradbench.report.finished_run import seal; \
        [seal(folder) for folder in sys.argv[1:]]" FOLDER ...

lists them anew. The folder may be anybody's, or an older version's.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta, Struct

from gradbench.errors import GradbenchError, printable
from gradbench.run.rows import FILES, LARGEST, read_csv, rows_file
from gradbench.store import file_digest
from gradbench.support.files import Damaged, read_bytes, read_json
from gradbench.support.progress import say

if TYPE_CHECKING:
    import pandas

RUN_JSON = "run.json"
PARTIAL = ".gradbench-part"
"""Where a run writes before it moves all to its place; with a run.json it is being moved."""
FIXED = (*FILES, "costs.csv", "costs.md", "table.md")
PATTERNS = (
    *(f"figures/{name}.png" for name in ("roc*", "scores_*", "gradient_profile*", "levels")),
    *(f"model/s*/{name}" for name in ("model.json", "network.safetensors")),
    "model/s*/detectors/*.safetensors",
)
"""What a run writes besides `FIXED` and its `run.json`."""
COPY_AGAIN = (
    "copy the run's folder again, or carry out its command (at the head of table.md) once more, "
    "which writes it anew"
)
Files = Mapping[str, Mapping[str, Any]]
"""By path from the folder, with `/`: `bytes`, `sha256`, and `rows` of results.csv."""
_Count = Annotated[int, Meta(ge=0, lt=2**53)]
_Share = Annotated[float, Meta(ge=0, le=1)]
_Whole = Annotated[int, Meta(gt=-(2**53), lt=2**53)]


class ListedFile(Struct, frozen=True):
    """A file that a run or a sweep wrote."""

    bytes: _Count
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    rows: _Count | None = None


class _Detector(Struct, frozen=True):
    supervision: Literal["none", "synthetic", "tuning", "training"]
    clean_seen: str
    reads: list[str] | str
    passes: str = ""


class _About(Struct, frozen=True):
    """What a table says besides its numbers; `told` is how the protocol makes a value."""

    experiment: str
    in_dist: str
    backbone: str
    width: _Whole | None
    accuracy: dict[str, _Share]
    n_clean: _Count
    protocol: str
    detectors: dict[str, _Detector]
    command: str
    told: str = ""
    remark: str = ""
    left_out: dict[str, str] = {}
    n_accuracy: _Count | None = None
    hold_out: str = ""
    refused: dict[str, str] = {}
    shadows: list[str] = []


class _Evaluation(Struct, frozen=True):
    seed: _Whole
    confidence: _Share | None = None


class _Data(Struct, frozen=True):
    root: str | None = None


class _Config(Struct, frozen=True):
    """Settings that are read again; all others are kept as they are."""

    backbone: dict[str, Any]
    evaluation: _Evaluation
    challenge: dict[str, Any]
    limit: _Whole | None = None
    data: _Data = _Data()


class _ImageSet(Struct, frozen=True):
    images: _Count | None = None
    fingerprint: str | None = None
    status: str | None = None
    note: str | None = None


class _Network(Struct, frozen=True):
    weights: str
    origin: str | None = None


class _Code(Struct, frozen=True):
    version: str
    commit: str | None = None
    changed: bool | None = None


class _Time(Struct, frozen=True):
    begun: str
    seconds: Annotated[float, Meta(ge=0, lt=2**53)] | None = None
    products_made: _Count | None = None
    products_found: _Count | None = None


class _Record(Struct, frozen=True):
    about: _About
    config: _Config
    data: dict[str, _ImageSet]
    networks: dict[str, _Network]
    code: _Code
    time: _Time
    versions: dict[str, str] = {}
    hardware: dict[str, str | float | _Whole | bool | None] = {}
    files: dict[str, ListedFile] | None = None

    def __post_init__(self):
        for name in self.files or ():
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\0" in name:
                raise ValueError(f"files names {name!r}, which lies outside the folder")


def read_record(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's `run.json`, every field that is used of the type it needs.

    Raises:
        GradbenchError: if it is missing, damaged, or lacks a field.
    """
    path = folder / RUN_JSON
    try:
        record = read_json(path, _Record)
    except Damaged as fault:
        if fault.missing:
            raise GradbenchError(
                f"{printable(path)} is damaged or of another version ({fault.missing} is missing): "
                f"{COPY_AGAIN}, into another out=DIR"
            ) from fault
        raise GradbenchError(
            f"{printable(path)} is damaged ({printable(fault)}): copy the run's folder again, or "
            "carry out its command once more with another out=DIR"
        ) from fault
    about = {"told": "", "remark": "", "left_out": {}} | record["about"]
    return {"versions": {}, "hardware": {}} | record | {"about": about}


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write a `run.json` beside its place and move it there."""
    beside = folder / f".{RUN_JSON}.{os.getpid()}"
    beside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    os.replace(beside, folder / RUN_JSON)


def present_files(folder: Path) -> list[str]:
    """Return what stands in a folder where a run writes, whoever wrote it."""
    found = (path for pattern in PATTERNS for path in folder.glob(pattern))
    fixed = [name for name in FIXED if os.path.lexists(folder / name)]
    return sorted([*fixed, *(path.relative_to(folder).as_posix() for path in found)])


def list_files(folder: Path, names: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
    """Return size and checksum of a folder's files, by default of all that a run writes."""
    files = {}
    for name in present_files(folder) if names is None else names:
        path = folder / name
        files[name] = {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        if name == FILES[0]:
            files[name]["rows"] = count_rows(path)
    return files


def count_rows(path: Path) -> int:
    """Return the whole rows of a CSV file below its header; a last one without end is none."""
    with open(path, newline="", encoding="utf-8", errors="replace") as stream:
        count = sum(1 for _ in csv.reader(stream))
    with open(path, "rb") as stream:
        if stream.seek(0, os.SEEK_END):
            stream.seek(-1, os.SEEK_END)
        broken = stream.read(1) not in (b"\n", b"")
    return max(count - 1 - broken, 0)


def check_file(folder: Path, files: Files, name: str) -> Path:
    """Return the path of a file that is as the run wrote it.

    Args:
        folder: of the run.
        files: listed in its run.json.
        name: of the file, a path from the folder.

    Raises:
        GradbenchError: if it is missing, broken off or edited: which rows, and what to do.
    """
    path, listed = folder / name, files.get(name)
    if not os.path.isfile(path):
        raise GradbenchError(f"{printable(path)} is missing: {COPY_AGAIN}")
    if listed is None:
        raise GradbenchError(
            f"{printable(path)} is no file of this run: its run.json does not list it"
        )
    try:
        size = path.stat().st_size
        if size == listed["bytes"] and file_digest(path) == listed["sha256"]:
            return path
        counted = listed.get("rows") is not None and size < listed["bytes"]
        lost = listed["rows"] - count_rows(path) if counted else 0
    except csv.Error:
        lost = 0
    except OSError as fault:
        raise GradbenchError(f"cannot read {printable(path)}: {fault.strerror}") from fault
    if lost > 0:
        what = f"is broken off or shortened: {lost} of its {listed['rows']} rows are missing"
    elif size < listed["bytes"]:
        gone = f"{listed['bytes'] - size} of {listed['bytes']} bytes are gone"
        what = f"was changed after the run: {gone}"
    else:
        what = "was edited after the run wrote it (its SHA-256 is another)"
    raise GradbenchError(f"{printable(path)} {what}: {COPY_AGAIN}")


def seal(folder: str | Path) -> bool:
    """List the files of a finished run in its run.json as they are now.

    Returns:
        Whether the folder is that of a run; others are left alone.

    Raises:
        GradbenchError: if its run.json is damaged.
    """
    folder = Path(folder)
    if not os.path.isfile(folder / RUN_JSON):
        return False
    read_record(folder)
    record = json.loads((folder / RUN_JSON).read_text(encoding="utf-8"))  # in its own order
    write_record(folder, record | {"files": list_files(folder)})
    return True


class FinishedRun:
    """The folder of a finished run, as `show`, `report`, `tables` and `score` open it.

    Args:
        path: of the folder.

    Attributes:
        record: the content of its run.json, every text on one line without control characters.

    Raises:
        GradbenchError: if it is half-written, or its run.json is damaged.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        if (self.path / PARTIAL / RUN_JSON).exists():
            raise GradbenchError(
                f"the run in {printable(path)} is only half-written ({PARTIAL} is left): the "
                "command that made it goes on from where it stopped"
            )
        record = read_record(self.path)
        self._files: Files | None = record.get("files")
        self.record: dict[str, Any] = _one_line(record)
        self._warned = False

    def file(self, name: str) -> Path:
        """Return the path of a file that is as the run wrote it; see `check_file`.

        Runs of older versions list no files: that is said once, and the file is taken as it is.
        """
        if self._files is not None:
            return check_file(self.path, self._files, name)
        if not self._warned:
            say(
                f"{printable(self.path)} was written by an older gradbench, which noted no "
                "checksums: whether its files are whole cannot be told"
            )
            self._warned = True
        if not (self.path / name).is_file():
            raise GradbenchError(f"{printable(self.path / name)} is missing: {COPY_AGAIN}")
        return self.path / name

    def has(self, name: str) -> bool:
        """Tell whether a file is there and, where files are listed, the run's own."""
        return (self._files is None or name in self._files) and (self.path / name).is_file()

    def text(self, name: str) -> str:
        """Return the text of a file, without control characters.

        Raises:
            GradbenchError: if it is missing, broken off, edited or no text.
        """
        path = self.file(name)
        try:
            lines = read_bytes(path, LARGEST).decode("utf-8").split("\n")
        except (Damaged, ValueError) as fault:
            raise GradbenchError(f"cannot read {printable(path)}: {printable(fault)}") from fault
        return "\n".join(map(printable, lines))

    @cached_property
    def frame(self) -> pandas.DataFrame:
        """The rows of the run.

        Raises:
            GradbenchError: if its rows are missing, broken off, edited or damaged.
        """
        rows = read_csv(self.file(rows_file(self.path).name))
        for name in rows.select_dtypes("str"):
            known = {text: _one_line(text) for text in rows[name].unique()}
            if any(text != known[text] for text in known):
                rows[name] = rows[name].map(known)
        return rows


def _one_line(value: Any) -> Any:
    """Return data with every text in it on one line and printable, names of fields too."""
    if isinstance(value, str):
        return printable(value.strip().replace("\n", " "))
    if isinstance(value, dict):
        return {_one_line(name): _one_line(inner) for name, inner in value.items()}
    return [_one_line(inner) for inner in value] if isinstance(value, list) else value
