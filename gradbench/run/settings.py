"""Checks of the numbers and switches in a run's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradbench.challenges.attacks.base import KEEP
from gradbench.data.trained_on import ALL, KEY, WITHOUT
from gradbench.errors import GradbenchError, unknown

CONTROLS = ("identity", "random_labels", "round_trip", "random_split", "memorisation")


def levels(config: Mapping[str, Any]) -> list[int] | None:
    """Return the levels that are asked for, None for all.

    Raises:
        GradbenchError: unless they are whole numbers, each of them once.
    """
    given = config["levels"] if config["level"] is None else config["level"]
    return None if given is None else _integers("levels", given)


def seeds(config: Mapping[str, Any]) -> list[int]:
    """Return the seeds of the networks.

    Raises:
        GradbenchError: unless they are whole numbers, each of them once.
    """
    return _integers("seeds", config["seed"] if config["seeds"] is None else config["seeds"])


def _integers(key: str, value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    if not values or any(type(v) is not int or v < 0 for v in values):
        raise GradbenchError(
            f"{key}={value}: write a list of whole numbers from 0, for example {key}=[1,3,5]"
        )
    if len(set(values)) < len(values):
        raise GradbenchError(f"{key}={value}: a number stands there twice")
    return values


def check_settings(config: Mapping[str, Any]) -> None:
    """Refuse numbers and switches of the main configuration that are out of range.

    Raises:
        GradbenchError: naming the setting and what it may be.
    """
    for key, least in (
        ("evaluation.replicates", 100),
        ("evaluation.seed", 0),
        ("challenge.seed", 0),
        ("detector.seed", 0),
        ("data.workers", 1),
        ("controls.limit", 10),
        ("model.hold_out", 0),
        ("limit", 10),
        ("devices", 1),
    ):
        value = config
        for part in key.split("."):
            value = value[part]
        if value is None and key == "limit":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise GradbenchError(f"{key}={value}: a whole number, at least {least}")
    for key in ("data.download", "challenge.quantise", *(f"controls.{c}" for c in CONTROLS)):
        section, name = key.split(".")
        if type(config[section][name]) is not bool:
            raise GradbenchError(f"{key}={config[section][name]}: true or false")
    keep, noisy = (config["challenge"][name] for name in ("keep", "noisy_negatives"))
    if keep is not None and keep not in KEEP:
        raise unknown("challenge.keep", str(keep), (*KEEP, "null"))
    if noisy is not None and type(noisy) is not bool:
        raise GradbenchError(f"challenge.noisy_negatives={noisy}: true, false or null")
    confidence = config["evaluation"]["confidence"]
    if not isinstance(confidence, float) or not 0.5 <= confidence < 1:
        raise GradbenchError(f"evaluation.confidence={confidence}: between 0.5 and 1")


def check_trained_on(backbone: Mapping[str, Any]) -> None:
    """Refuse a `backbone.trained_on` that says nothing, or nothing that can be meant.

    Raises:
        GradbenchError: naming the valid choices.
    """
    said = backbone.get("trained_on")
    if said is None:
        return
    if not isinstance(said, str) or not said:
        raise GradbenchError(
            f"{KEY}={said}: choose {ALL}, {WITHOUT}, or a file that lists the names of the images"
        )
    if not backbone.get("checkpoint"):
        raise GradbenchError(
            f"{KEY}={said} is said of a network from backbone.checkpoint=FILE, and there is none: "
            "gradbench trains its own without the hold-out"
        )
