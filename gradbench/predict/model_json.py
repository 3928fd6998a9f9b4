"""The fields of `model.json`, checked once when a run is opened: it may be anybody's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from gradbench.data.picture import Resampling
from gradbench.errors import GradbenchError, printable
from gradbench.support.files import Damaged, is_inside, read_json

HOW_TO_REPAIR = (
    "copy the run's folder again, or carry out its command (in table.md), which writes it anew"
)
LARGEST = 2**14
"""Pixels of a side of the network's images, at most: enough for any, and no bomb."""
COLUMNS = ("file", "class", "probability", "note")
"""Names of columns that no detector may have."""
NUMBER = 1e300
"""More than any number that is kept, and less than infinity."""

Whole = Annotated[int, Meta(gt=-(2**31), lt=2**31)]
Name = Annotated[str, Meta(min_length=1)]
Finite = Annotated[float, Meta(ge=-NUMBER, le=NUMBER)]


class Network(Struct):
    """A class path with its arguments."""

    target: str = field(name="_target_")
    arguments: dict[str, Any]


class Config(Struct):
    """A class path with its settings."""

    target: str = field(name="_target_")


class Threshold(Struct):
    """The largest score that a detector calls reliable, and the images that it rests on."""

    value: float
    images: Whole
    note: str


class Detector(Struct):
    """An entry of `detectors`."""

    name: Name
    fitted_on: str
    column: str
    config: Config
    version: Whole
    supervision: str
    state: str
    threshold: Threshold | None
    code: str = ""

    def __post_init__(self):
        if not is_inside(self.state):
            raise ValueError("state must be a file of this folder, or empty")


class OwnOutput(Struct):
    """An output of the user's own that detectors read."""

    config: Config
    version: Whole
    code: str = ""


class Model(Struct):
    """The fields of `model.json`."""

    network: Network
    shape: Annotated[list[Annotated[int, Meta(ge=1, le=LARGEST)]], Meta(min_length=3, max_length=3)]
    mean: list[Finite]
    std: list[Annotated[float, Meta(gt=0, le=NUMBER)]]
    classes: Annotated[list[str], Meta(min_length=1)]
    resampling: dict[str, Any]
    feature_layers: list[str]
    in_dist: str
    outputs: dict[str, Whole]
    kept: Annotated[float, Meta(gt=0, le=100)]
    detectors: list[Detector]
    sha256: dict[str, str]
    own_outputs: dict[str, OwnOutput] = {}
    learned: dict[str, str] = {}
    hold_out: str = ""
    code: str = ""

    def __post_init__(self):
        if self.shape[0] not in (1, 3):
            raise ValueError("shape must be [channels, height, width] with 1 or 3 channels")
        for name in ("mean", "std"):
            if len(getattr(self, name)) != self.shape[0]:
                raise ValueError(f"{name} must be a list with a number for each channel")
        try:
            fits = isinstance(Resampling(**self.resampling).antialias, bool)
        except (GradbenchError, TypeError, AttributeError):
            fits = False
        if not fits:
            raise ValueError("resampling must be filter, antialias and mode of a resampling")
        if not all(map(is_inside, self.learned.values())):
            raise ValueError("learned must be files of this folder, by the names of outputs")
        taken = set(COLUMNS)
        for place, entry in enumerate(self.detectors):
            column = f"{entry.name}@{entry.fitted_on}" if entry.fitted_on else entry.name
            if entry.column != column or {column, f"verdict_{column}"} & taken:
                raise ValueError(
                    f"detectors.{place}.column must be name@fitted_on, of no other column"
                )
            taken |= {column, f"verdict_{column}"}


def read_model_json(path: Path) -> dict[str, Any]:
    """Return the content of a `model.json`, of which every field that is used is what it must be.

    Raises:
        GradbenchError: if it cannot be read, lacks a field, or one is of another kind or size.
    """
    try:
        return read_json(path, Model)
    except Damaged as fault:
        if fault.missing:
            raise GradbenchError(
                f"{printable(path)} says nothing of {printable(fault.missing)}, as those of an "
                f"older gradbench do: {HOW_TO_REPAIR}"
            ) from fault
        raise damaged(path, str(fault)) from fault


def damaged(path: Path, fault: str) -> GradbenchError:
    """Return the error for a `model.json` with a fault."""
    return GradbenchError(f"{printable(path)} is damaged: {printable(fault)}: {HOW_TO_REPAIR}")
