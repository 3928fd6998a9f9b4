"""What `model.json` must say, checked once when a run is opened: it may be anybody's."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from gradbench.data.picture import Fit
from gradbench.errors import GradbenchError
from gradbench.support.paths import shown

ANEW = "copy the run's folder again, or carry out its command (in table.md), which writes it anew"
LARGEST = 2**14
"""Pixels of a side of the network's images, at most: enough for any, and no bomb."""
COLUMNS = ("file", "class", "probability", "note")
"""Names of columns that no detector may have."""


class Field(NamedTuple):
    """What a field must be: in words, and as a test of its value."""

    words: str
    holds: Callable[[Any], bool]


def _text(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode("utf-8", "surrogateescape")  # names of files may hold bytes that are no text
    except UnicodeEncodeError:
        return False
    return True


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31


def _number(value: Any) -> bool:
    return isinstance(value, float) or _whole(value)


def _finite(value: Any) -> bool:
    return _number(value) and math.isfinite(value)


def _list(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(holds, value))


def _mapping(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(holds, value.values()))


def _shape(value: Any) -> bool:
    return (
        _list(_whole)(value)
        and len(value) == 3
        and value[0] in (1, 3)
        and all(0 < side <= LARGEST for side in value[1:])
    )


def _resampling(value: Any) -> bool:
    try:
        return isinstance(Fit(**value).antialias, bool)
    except (GradbenchError, TypeError, AttributeError):
        return False


def _threshold(value: Any) -> bool:
    if not isinstance(value, dict):
        return value is None
    tests = {"value": _number, "images": _whole, "note": _text}
    return all(name in value and holds(value[name]) for name, holds in tests.items())


def _class(value: Any) -> bool:
    return isinstance(value, dict) and _text(value.get("_target_"))


def _inside(value: Any) -> bool:
    if not _text(value) or "\0" in value or "\\" in value:
        return False
    path = PurePosixPath(value)
    return not path.is_absolute() and ".." not in path.parts


FIELDS = {
    "network": Field(
        "a class path _target_ with its arguments",
        lambda v: _class(v) and isinstance(v.get("arguments"), dict),
    ),
    "shape": Field(f"[channels, height, width], 1 or 3 by at most {LARGEST}", _shape),
    "mean": Field("a list with a number for each channel", _list(_finite)),
    "std": Field(
        "a list with a number above 0 for each channel", _list(lambda v: _finite(v) and v > 0)
    ),
    "classes": Field("a list of names", lambda v: _list(_text)(v) and v != []),
    "resampling": Field("filter, antialias and mode of a resampling", _resampling),
    "feature_layers": Field("a list of names", _list(_text)),
    "in_dist": Field("a name", _text),
    "outputs": Field("versions by name of output", _mapping(_whole)),
    "kept": Field("a number of percent", lambda v: _number(v) and 0 < v <= 100),
    "detectors": Field("a list of detectors", _list(lambda v: isinstance(v, dict))),
    "sha256": Field("checksums by file", _mapping(_text)),
}
"""The fields of `model.json`."""
OF_DETECTOR = {
    "name": Field("a name", lambda v: _text(v) and v != ""),
    "fitted_on": Field("a name, or empty", _text),
    "column": Field("name@fitted_on, of no other column", _text),
    "config": Field("a class path _target_ with settings", _class),
    "version": Field("a number", _whole),
    "supervision": Field("a name", _text),
    "state": Field("a file of this folder, or empty", _inside),
    "threshold": Field("value, images and note, or null", _threshold),
}
"""The fields of each entry of `detectors`."""


def read(path: Path) -> dict[str, Any]:
    """Return the content of a `model.json`, of which every field that is used is what it must be.

    Raises:
        GradbenchError: if it cannot be read, lacks a field, or one is of another kind or size.
    """
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as fault:
        reason = " ".join(str(fault).split())[:120]
        raise GradbenchError(f"{shown(path)} cannot be read ({reason}): {ANEW}") from fault
    if not isinstance(about, dict):
        raise damaged(path, "it holds no fields")
    _check(path, about, FIELDS)
    for place, entry in enumerate(about["detectors"]):
        _check(path, entry, OF_DETECTOR, f"detectors.{place}.")
    for name in ("mean", "std"):
        if len(about[name]) != about["shape"][0]:
            raise damaged(path, f"{name} must be {FIELDS[name].words}")
    _check_columns(path, about["detectors"])
    return about


def damaged(path: Path, what: str) -> GradbenchError:
    """Return the error for a `model.json` with a fault."""
    return GradbenchError(f"{shown(path)} is damaged: {shown(what)}: {ANEW}")


def _check(path: Path, about: Mapping, fields: Mapping[str, Field], start: str = "") -> None:
    missing = [f"{start}{name}" for name in fields if name not in about]
    if missing:
        raise GradbenchError(
            f"{shown(path)} says nothing of {', '.join(missing)}, as those of an older gradbench "
            f"do: {ANEW}"
        )
    for name, field in fields.items():
        if not field.holds(about[name]):
            raise damaged(path, f"{start}{name} must be {field.words}")


def _check_columns(path: Path, entries: Iterable[Mapping[str, str]]) -> None:
    """Refuse names of columns that are not those of the detectors, or stand for two things."""
    taken = set(COLUMNS)
    for place, entry in enumerate(entries):
        column, challenge = entry["column"], entry["fitted_on"]
        own = f"{entry['name']}@{challenge}" if challenge else entry["name"]
        if column != own or {column, f"verdict_{column}"} & taken:
            raise damaged(path, f"detectors.{place}.column must be {OF_DETECTOR['column'].words}")
        taken |= {column, f"verdict_{column}"}
