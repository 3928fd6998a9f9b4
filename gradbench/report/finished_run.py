r"""The folder of a finished run: its `run.json`, and its files, checked before they are read.

`run.json` lists size and SHA-256 of every file that the run wrote. If a script made one again,

    python -c "import sys; from gradbench.report.finished_run import seal; \
        [seal(folder) for folder in sys.argv[1:]]" FOLDER ...

lists them anew. The folder may be anybody's, or an older version's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta, Struct

from gradbench.config import group_files, load_member
from gradbench.errors import GradbenchError, printable
from gradbench.run.rows import DEVIATION, FILES, LARGEST, read_csv, rows_file
from gradbench.store import file_digest
from gradbench.support.files import Damaged, read_bytes, read_json

if TYPE_CHECKING:
    import pandas

RUN_JSON = "run.json"
DETECTION = "detection"
"""The task of runs that name none."""
PARTIAL = ".gradbench-part"
"""Where a run writes before it moves all to its place; with a run.json it is being moved."""
PATTERNS = (
    *(*FILES, "costs.csv", "costs.md", "table.md"),
    *(f"figures/{name}.png" for name in ("roc*", "scores_*", "gradient_profile*", "levels")),
    *(f"model/s*/{name}" for name in ("model.json", "network.safetensors")),
    "model/s*/detectors/*.safetensors",
)
"""The files that a run writes besides its run.json."""
COPY_AGAIN = (
    "copy the run's folder again, or carry out its command (at the head of table.md) once more, "
    "which writes it anew"
)
DEEPEST = 4
"""Folders below the one named in which runs are looked for."""
NO_RUNS = ("store", "model", "figures")
"""Folders that hold no runs, and in the case of the store very many files."""
SOURCES = {
    "part": "a part of the set",
    "stand_in": "a stand-in",
    "regenerated": "brought to this shape here instead of taken from the published archive",
    "generated": "generated here instead of taken from the published archive",
}
"""The words of the column `source` in sentences about images."""
Files = Mapping[str, Mapping[str, Any]]
"""By path from the folder, with `/`: `bytes` and `sha256`."""
_Count = Annotated[int, Meta(ge=0, lt=2**53)]
_Share = Annotated[float, Meta(ge=0, le=1)]
_Whole = Annotated[int, Meta(gt=-(2**53), lt=2**53)]


class ListedFile(Struct, frozen=True):
    """A file that a run or a sweep wrote."""

    bytes: _Count
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class _Detector(Struct, frozen=True):
    supervision: Literal["none", "synthetic", "tuning", "training"]
    clean_seen: str
    reads: list[str] | str
    passes: str = ""


class _About(Struct, frozen=True):
    """The facts in a table's head; `told` is the protocol's sentence about its values."""

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
    task: str = DETECTION
    remark: str = ""
    left_out: dict[str, str] = {}
    n_accuracy: _Count | None = None
    hold_out: str = ""
    refused: dict[str, str] = {}
    shadows: list[str] = []
    network_origin: str = ""


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
    files: dict[str, ListedFile]
    versions: dict[str, str] = {}
    hardware: dict[str, str | float | _Whole | bool | None] = {}

    def __post_init__(self):
        for name in self.files:
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
        raise GradbenchError(
            f"{printable(path)} is damaged or of another version ({printable(fault)}): copy the "
            "run's folder again, or carry out its command once more with another out=DIR"
        ) from fault
    absent = {"told": "", "task": DETECTION, "remark": "", "left_out": {}, "network_origin": ""}
    about = absent | record["about"]
    return {"versions": {}, "hardware": {}} | record | {"about": about}


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write a `run.json` beside its place and move it there."""
    beside = folder / f".{RUN_JSON}.{os.getpid()}"
    beside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    os.replace(beside, folder / RUN_JSON)


def present_files(folder: Path) -> list[str]:
    """Return what stands in a folder where a run writes, whoever wrote it."""
    paths = (path for pattern in PATTERNS for path in folder.glob(pattern))
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def list_files(folder: Path, names: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
    """Return size and checksum of a folder's files, by default of all that a run writes."""
    names = present_files(folder) if names is None else names
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": file_digest(folder / name)}
        for name in names
    }


def check_file(folder: Path, files: Files, name: str) -> Path:
    """Return the path of a file, by its path from a folder, that is as its run.json lists it.

    Raises:
        GradbenchError: if it is missing, broken off or edited.
    """
    path, listed = folder / name, files.get(name)
    if not os.path.isfile(path):
        raise GradbenchError(f"{printable(path)} is missing: {COPY_AGAIN}")
    if listed is None:
        raise GradbenchError(
            f"{printable(path)} is no file of this run: its run.json does not list it"
        )
    try:
        missing = listed["bytes"] - path.stat().st_size
        if missing == 0 and file_digest(path) == listed["sha256"]:
            return path
    except OSError as fault:
        raise GradbenchError(f"cannot read {printable(path)}: {fault.strerror}") from fault
    change = "was edited after the run wrote it (its SHA-256 is another)"
    if missing > 0:
        change = f"is broken off or shortened: {missing} of its {listed['bytes']} bytes are missing"
    raise GradbenchError(f"{printable(path)} {change}: {COPY_AGAIN}")


def seal(folder: str | Path) -> bool:
    """List the files of a finished run in its run.json as they are now.

    Returns:
        Whether the folder is that of a run; others are left alone.
    """
    folder = Path(folder)
    if not os.path.isfile(folder / RUN_JSON):
        return False
    record = json.loads((folder / RUN_JSON).read_text(encoding="utf-8"))
    write_record(folder, record | {"files": list_files(folder)})
    return True


class FinishedRun:
    """The folder of a finished run, as `show`, `report`, `tables` and `score` open it.

    `record` is the content of its run.json, every text on one line without control characters.

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
        self.files: Files = record["files"]
        self.record: dict[str, Any] = _one_line(record)
        self.about: dict[str, Any] = self.record["about"]
        self.config: dict[str, Any] = self.record["config"]
        self.begun: str = self.record["time"]["begun"]
        self.commit: str = self.record["code"].get("commit") or self.record["code"]["version"]
        self.name, self.in_dist = self.about["experiment"], self.about["in_dist"]
        self.backbone, self.protocol = self.about["backbone"], self.about["protocol"]

    def file(self, name: str) -> Path:
        """Return the path of a file that is as the run wrote it; see `check_file`."""
        return check_file(self.path, self.files, name)

    def has(self, name: str) -> bool:
        """Tell whether a file is there and the run's own."""
        return name in self.files and (self.path / name).is_file()

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
            lines = {text: _one_line(text) for text in rows[name].unique()}
            if any(text != line for text, line in lines.items()):
                rows[name] = rows[name].map(lines)
        return rows

    @cached_property
    def main_rows(self) -> pandas.DataFrame:
        """Rows of the run's main table: every detector on every challenge, over all folds.

        With the deviations over several networks.
        """
        main, deviates = self.frame["role"] == "main", self.frame["metric"].str.endswith(DEVIATION)
        return self.frame[main & (self.frame["fold"].isin(["all", ""]) | deviates)]

    @property
    def comparable(self) -> str:
        """Equal for runs whose numbers may stand in one table: network, images, protocol."""
        weights = {seed: one["weights"] for seed, one in self.record["networks"].items()}
        seeds = (self.config["evaluation"]["seed"], self.config["challenge"])
        same = (weights, self.protocol, self.config.get("limit"), seeds)
        return json.dumps(same, sort_keys=True)

    def narrower(self, dirs: Iterable[Path] = ()) -> str:
        """Return how a network is smaller than its backbone's file says, "" if it is not."""
        if self.backbone not in group_files("backbone", dirs):
            return ""
        own = self.config["backbone"]
        return ", ".join(
            f"{key} {own[key]} instead of {value}"
            for key, value in load_member("backbone", self.backbone, dirs).items()
            if type(value) is int and own.get(key, value) != value
        )

    def network(self, dirs: Iterable[Path] = ()) -> str:
        """Return the network's name, with its width where that is not its backbone's usual one."""
        narrower = self.narrower(dirs) and self.about["width"]
        width = f" of width {self.about['width']}" if narrower else ""
        return self.backbone + width + (" as published" if self.about["network_origin"] else "")

    def detector_notes(self, name: str) -> list[str]:
        """Return with which settings that are not those of its file a detector was run."""
        members = [one for one in self.config.get("detectors", []) if isinstance(one, dict)]
        for one in members:
            own = [f"{key}={value}" for key, value in one.items() if key not in ("use", "name")]
            if own and name == (one.get("name") or one.get("use")):
                return [f"{name} with {', '.join(own)}"]
        return []

    def image_notes(self) -> list[str]:
        """Return what is to be known of the clean images of the run."""
        notes = []
        if self.config.get("limit"):
            count = self.about["n_clean"]
            notes.append(f"{count} clean test images of {self.in_dist}, not all of them")
        for split, role in (("train", "trained on"), (f"{self.in_dist} test", "clean images:")):
            status = self.record["data"].get(split, {}).get("status")
            if status in SOURCES:
                notes.append(f"{role} {SOURCES[status]} {self.in_dist}")
        return notes


def missing_files(folder: Path) -> list[str]:
    """Return which of a finished run's two essential files a folder lacks: rows, run.json."""
    rows = any(os.path.isfile(Path(folder) / name) for name in FILES)
    record = os.path.isfile(Path(folder) / RUN_JSON)
    return [name for name, there in ((FILES[0], rows), (RUN_JSON, record)) if not there]


def sweep_runs(folder: Path) -> list[Path]:
    """Return the folders of the runs of a sweep by its folder, none where it is no sweep's."""
    if missing_files(folder) != [RUN_JSON]:
        return []
    return sorted(path for path in folder.iterdir() if not missing_files(path))


def find_runs(folders: Iterable[Path]) -> list[FinishedRun]:
    """Return the finished runs in folders and below, the newest first, then by path.

    Raises:
        GradbenchError: if a run.json is damaged.
    """
    paths: dict[Path, Path] = {}
    for folder in folders:
        for place, inside, files in os.walk(folder):
            if RUN_JSON in files and not set(FILES).isdisjoint(files):
                paths.setdefault(Path(place).resolve(), Path(place))
                inside.clear()
            deep = len(Path(place).relative_to(folder).parts) >= DEEPEST
            inside[:] = [n for n in sorted(inside) if n not in NO_RUNS and n[0] != "." and not deep]
    runs = sorted(map(FinishedRun, paths.values()), key=lambda run: str(run.path))
    return sorted(runs, key=lambda run: begin_time(run.begun), reverse=True)


def begin_time(begun: str) -> float:
    """Return when a run began in seconds, 0 where that cannot be told."""
    try:
        return datetime.fromisoformat(begun).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _one_line(value: Any) -> Any:
    """Return data with every text in it on one line and printable, names of fields too."""
    if isinstance(value, str):
        return printable(value.strip().replace("\n", " "))
    if isinstance(value, dict):
        return {_one_line(name): _one_line(inner) for name, inner in value.items()}
    return [_one_line(inner) for inner in value] if isinstance(value, list) else value
