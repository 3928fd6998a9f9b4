"""What `run.json` must say, read in one place: the folder may be anybody's, or an older one's."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from gradbench.errors import GradbenchError, printable
from gradbench.support.files import Damaged, read_json

NAME = "run.json"
ANEW = (
    "copy the run's folder again, or carry out its command (at the head of table.md) once more, "
    "which writes it anew"
)

Count = Annotated[int, Meta(ge=0, lt=2**53)]
Share = Annotated[float, Meta(ge=0, le=1)]
Whole = Annotated[int, Meta(gt=-(2**53), lt=2**53)]
Seconds = Annotated[float, Meta(ge=0, lt=2**53)]
Flat = str | float | Whole | bool | None


class File(Struct, frozen=True):
    """A file that the run wrote."""

    bytes: Count
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    rows: Count | None = None


class Detector(Struct, frozen=True):
    """What a detector reads and sees."""

    supervision: Literal["none", "synthetic", "tuning", "training"]
    clean_seen: str
    reads: list[str] | str
    passes: str = ""


class About(Struct, frozen=True):
    """What a table must say besides its numbers, see `table.markdown`."""

    experiment: str
    in_dist: str
    backbone: str
    width: Whole | None
    accuracy: dict[str, Share]
    n_clean: Count
    protocol: str
    detectors: dict[str, Detector]
    command: str
    told: str = ""
    remark: str = ""
    left_out: dict[str, str] = {}
    n_accuracy: Count | None = None
    hold_out: str = ""
    refused: dict[str, str] = {}
    shadows: list[str] = []


class Evaluation(Struct, frozen=True):
    """Settings of the evaluation that a table names."""

    seed: Whole
    confidence: Share | None = None


class Data(Struct, frozen=True):
    """Where images were looked for."""

    root: str | None = None


class Config(Struct, frozen=True):
    """Settings that are read again; all others are kept as they are."""

    backbone: dict[str, Any]
    evaluation: Evaluation
    challenge: dict[str, Any]
    limit: Whole | None = None
    data: Data = Data()


class Set(Struct, frozen=True):
    """A set of images."""

    images: Count | None = None
    fingerprint: str | None = None
    status: str | None = None
    note: str | None = None


class Network(Struct, frozen=True):
    """A network of the run."""

    weights: str
    origin: str | None = None


class Code(Struct, frozen=True):
    """The code that made the run."""

    version: str
    commit: str | None = None
    changed: bool | None = None


class Time(Struct, frozen=True):
    """When the run was made, and how long its last call took."""

    begun: str
    seconds: Seconds | None = None
    products_made: Count | None = None
    products_found: Count | None = None


class Told(Struct, frozen=True):
    """The content of `run.json`."""

    about: About
    config: Config
    data: dict[str, Set]
    networks: dict[str, Network]
    code: Code
    time: Time
    versions: dict[str, str] = {}
    hardware: dict[str, Flat] = {}
    files: dict[str, File] | None = None

    def __post_init__(self):
        for name in self.files or ():
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\0" in name:
                raise ValueError(f"files names {name!r}, which lies outside the folder")


def read_told(folder: Path) -> dict[str, Any]:
    """Return what `run.json` of a folder says, every field that is used of the type it must have.

    Raises:
        GradbenchError: if it is missing, damaged, or lacks a field.
    """
    path = folder / NAME
    try:
        told = read_json(path, Told)
        about = {"told": "", "remark": "", "left_out": {}} | told["about"]
        return {"versions": {}, "hardware": {}} | told | {"about": about}
    except Damaged as fault:
        if fault.missing:
            raise GradbenchError(
                f"{printable(path)} is damaged or of another version ({fault.missing} is missing): "
                f"{ANEW}, into another out=DIR"
            ) from fault
        raise GradbenchError(
            f"{printable(path)} is damaged ({printable(fault)}): copy the run's folder again, or "
            "carry out its command once more with another out=DIR"
        ) from fault


def one_line(value: Any) -> Any:
    """Return data with every text in it on one line and printable, names of fields too."""
    if isinstance(value, str):
        return printable(value.strip().replace("\n", " "))
    if isinstance(value, dict):
        return {one_line(name): one_line(inner) for name, inner in value.items()}
    return [one_line(inner) for inner in value] if isinstance(value, list) else value
