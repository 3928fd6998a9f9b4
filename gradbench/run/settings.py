"""Levels and seeds of a run, which have two settings each: one value, or several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradbench.data.in_distribution import ALL, TRAINED_ON, WITHOUT_HOLD_OUT
from gradbench.errors import GradbenchError


def levels(config: Mapping[str, Any]) -> list[int] | None:
    """Return the levels that are asked for, None for all.

    Raises:
        GradbenchError: unless each of them stands there once.
    """
    key = "levels" if config["level"] is None else "level"
    return None if config[key] is None else _each_once(key, config[key])


def seeds(config: Mapping[str, Any]) -> list[int]:
    """Return the seeds of the networks.

    Raises:
        GradbenchError: unless each of them stands there once.
    """
    key = "seed" if config["seeds"] is None else "seeds"
    return _each_once(key, config[key])


def _each_once(key: str, value: int | list[int]) -> list[int]:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise GradbenchError(f"{key}=[]: write whole numbers from 0, for example '{key}=[1,3,5]'")
    if len(set(values)) < len(values):
        raise GradbenchError(f"{key}={value}: a number stands there twice")
    return values


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
            f"{TRAINED_ON}={said}: choose {ALL}, {WITHOUT_HOLD_OUT}, or a file that lists the "
            "names of the images"
        )
    if not backbone.get("checkpoint"):
        raise GradbenchError(
            f"{TRAINED_ON}={said} is said of a network from backbone.checkpoint=FILE, and there is "
            "none: gradbench trains its own without the hold-out"
        )
