"""The typed description of a run's configuration: every setting, what it may be.

What configs/config.yaml sets and what an experiment's file may change are the same settings. The
members of other groups are described by the constructors of their classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct

from gradbench.errors import GradbenchError
from gradbench.support.described import check, names
from gradbench.support.names import check_name

From0 = Annotated[int, Meta(ge=0)]
From1 = Annotated[int, Meta(ge=1)]
From10 = Annotated[int, Meta(ge=10)]
Seed = Annotated[int, Meta(ge=0, le=2**32 - 1)]
"""NumPy and scikit-learn take no larger ones."""
Entry = str | dict[str, Any]
"""A member's name, or `{use: NAME, setting: value}`."""
Keep = Literal["all", "successful"]
Source = Literal["archive", "generated", "auto"]

ABSENT: Any = UNSET
"""A file need not name every setting; what holds then stands in configs/config.yaml."""


class Section(Struct, forbid_unknown_fields=True):
    """Settings that are known all."""


class Data(Section):
    """Where images are, see `data.settings.DataSettings`."""

    root: str = ABSENT
    download: bool = ABSENT
    workers: From1 = ABSENT


class Training(Section):
    """How f is trained, see `backbones.recipe.Recipe`."""

    epochs: From1 = ABSENT
    batch: Annotated[int, Meta(ge=2)] = ABSENT
    lr: Annotated[float, Meta(ge=0)] = ABSENT
    schedule: Literal["onecycle", "cosine"] = ABSENT
    momentum: Annotated[float, Meta(ge=0, lt=1)] = ABSENT
    weight_decay: Annotated[float, Meta(ge=0)] = ABSENT
    precision: Literal["auto", "bfloat16", "float32"] = ABSENT


class Augment(Section):
    """What training does to images."""

    pad: From0 = ABSENT
    flip: bool = ABSENT


class Roles(Section):
    """The splits of a data set that play each role, in order of preference."""

    train: str | list[str] = ABSENT
    test: str | list[str] = ABSENT
    challenge: str | list[str] = ABSENT


class Step(Section):
    """What images went through, see `data.processing`."""

    shape: tuple[From1, From1] = ABSENT
    filter: Literal["nearest", "box", "bilinear", "bicubic", "lanczos"] = ABSENT
    jpeg: Annotated[int, Meta(ge=1, le=100)] = ABSENT


class Download(Section):
    """An archive of a data set, see `data.download`."""

    url: str
    md5: str = ABSENT
    sha256: str = ABSENT
    bytes: From1 = ABSENT
    to: str = ABSENT
    inner: str = ABSENT
    splits: list[str] = ABSENT


class Challenge(Section):
    """What holds for all challenges of a run."""

    seed: Seed = ABSENT
    quantise: bool = ABSENT
    source: Source = ABSENT
    keep: Keep | None = ABSENT
    noisy_negatives: bool | None = ABSENT


class Detector(Section):
    """What holds for all detectors of a run."""

    seed: Seed = ABSENT


class Evaluation(Section):
    """How numbers and their intervals are measured."""

    seed: Seed = ABSENT
    replicates: Annotated[int, Meta(ge=100, le=10**6)] = ABSENT
    confidence: Annotated[float, Meta(ge=0.5, lt=1)] = ABSENT


class Controls(Section):
    """Which controls are made."""

    identity: bool = ABSENT
    random_labels: bool = ABSENT
    round_trip: bool = ABSENT
    random_split: bool = ABSENT
    memorisation: bool = ABSENT
    limit: From10 = ABSENT


class Model(Section):
    """What is kept to score new images."""

    hold_out: From0 = ABSENT


class Member(Struct):
    """What stands in the file of every member; the rest is its class's."""

    _target_: str | None = ABSENT
    name: str | None = ABSENT
    description: str = ABSENT


class Dataset(Member):
    """What stands in the file of a data set and holds settings itself, see `data.dataset`."""

    roles: Roles = ABSENT
    augment: Augment = ABSENT
    processing: Step | list[Step] | None = ABSENT
    archives: list[Download] = ABSENT


class Calls(Section):
    """What a network's class calls the number of classes and of channels, null for not at all."""

    classes: str | None = ABSENT
    channels: str | None = ABSENT


class Backbone(Member):
    """What stands in the file of a network besides arguments of its class."""

    checkpoint: str | None = ABSENT
    trained_on: str | None = ABSENT
    narrower: From1 | None = ABSENT
    feature_layers: str | list[str] | None = ABSENT
    arguments: Calls | None = ABSENT


class Suite(Section):
    """A file that stands for several members."""

    members: list[Entry] = ABSENT
    description: str = ABSENT


class Settings(Section):
    """A run's configuration."""

    name: str = ABSENT
    description: str = ABSENT
    remark: str = ABSENT
    out: str = ABSENT
    store: str = ABSENT
    challenges: Entry | list[Entry] | None = ABSENT
    level: From0 | list[From0] | None = ABSENT
    levels: From0 | list[From0] | None = ABSENT
    detectors: Entry | list[Entry] | None = ABSENT
    seed: Seed | list[Seed] = ABSENT
    seeds: Seed | list[Seed] | None = ABSENT
    limit: From10 | None = ABSENT
    device: str = ABSENT
    devices: From1 = ABSENT
    data: Data = ABSENT
    training: Training = ABSENT
    challenge: Challenge = ABSENT
    detector: Detector = ABSENT
    evaluation: Evaluation = ABSENT
    controls: Controls = ABSENT
    model: Model = ABSENT
    backbone: Backbone = ABSENT
    dataset: Dataset = ABSENT
    protocol: Member = ABSENT


GROUPS_INSIDE = ("backbone", "dataset", "protocol")
"""Sections of which each is a member's file."""


def check_settings(config: Mapping[str, Any]) -> None:
    """Refuse a composed configuration that is not what is described here.

    Raises:
        GradbenchError: naming the setting, its value and what is due.
    """
    check(config, Settings)
    check_name("name", config["name"])
    for group in GROUPS_INSIDE:
        if config[group].get("name") is not None:
            check_name(f"{group}.name", config[group]["name"])


def check_file(group: str, content: Mapping[str, Any], path: Path) -> None:
    """Refuse the file of a member that is not what is described here.

    Args:
        group: of the configuration.
        content: as it stands there; what refers to other settings is checked when it is composed.
        path: of the file.

    Raises:
        GradbenchError: naming the file, the setting, its value and what is due.
    """
    due, kind, also = Member, "setting", ()
    if group == "experiment":
        if "@package _global_" not in path.read_text(encoding="utf-8"):
            raise GradbenchError(
                f"{path} changes nothing: write '# @package _global_' as its first line"
            )
        due, also = Settings, ("defaults",)
        content = {k: v for k, v in content.items() if k not in ("defaults", "hydra")}
    elif group in ("backbone", "dataset"):
        due = Backbone if group == "backbone" else Dataset
    elif "members" in content:
        due, kind = Suite, f"setting of a suite of {group}s"
    elif group in ("launcher", "table"):
        return
    try:
        check(_settled(content), due, "", kind, also)
    except GradbenchError as fault:
        raise GradbenchError(f"{path}: {fault}") from None


def _settled(content: Any) -> Any:
    """Return a mapping without the values that wait for others, as `${name}`."""
    if not isinstance(content, Mapping):
        return content
    return {k: _settled(v) for k, v in content.items() if not _waits(v)}


def _waits(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_waits, value))
    return isinstance(value, str) and ("${" in value or value == "???")


def every_setting() -> list[str]:
    """Return the names of all settings."""
    return names(Settings)
