"""JSON files that may be anybody's: read whole or refused, and checked against a typed schema."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from gradbench.support.typed import split_complaint

LARGEST = 2**24
"""Bytes of a JSON file, at most: those of runs and networks hold some kilobytes."""
DEEPEST = 50
"""Levels of lists and mappings in each other, at most."""
TOO_DEEP = f"it is nested more than {DEEPEST} deep"


class Damaged(ValueError):
    """The damage of a file, in words that follow its name; `missing` names absent fields."""

    missing: str = ""


def read_json(path: Path, schema: Any, largest: int = LARGEST) -> Any:
    """Return the content of a JSON file as plain data that fits a schema.

    Args:
        path: of the file.
        schema: a type as msgspec takes it, usually a `msgspec.Struct`; other fields are kept.
        largest: bytes that it may have.

    Raises:
        Damaged: if it cannot be read, is no JSON, too large or too deep, names a field twice,
            holds half a surrogate pair (bytes of file names that are no text are none), or a field
            is missing or of another type than the schema says.
    """
    try:
        text = read_bytes(path, largest).decode("utf-8")
        content = json.loads(text, object_pairs_hook=_each_once)
        _check(content)
        msgspec.convert(content, schema)
    except msgspec.ValidationError as fault:
        raise _damaged(fault) from fault
    except Damaged:
        raise
    except RecursionError as fault:
        raise Damaged(TOO_DEEP) from fault
    except (ValueError, OverflowError) as fault:
        raise Damaged(" ".join(str(fault).split())[:120]) from fault
    return content


def is_inside(name: str) -> bool:
    """Tell whether a path in a file leads to a place below its folder, by its words.

    >>> [is_inside(name) for name in ("a/b.png", "../b.png", "/etc/b.png")]
    [True, False, False]
    """
    path = PurePosixPath(name)
    return not ("\0" in name or "\\" in name or path.is_absolute() or ".." in path.parts)


def read_bytes(path: Path, largest: int) -> bytes:
    """Return the bytes of a file.

    Raises:
        Damaged: if it cannot be read, is no plain file, or is larger than allowed.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise Damaged("it is no plain file")
    try:
        with open(path, "rb") as stream:
            content = stream.read(largest + 1)
    except (OSError, ValueError) as fault:
        raise Damaged(getattr(fault, "strerror", None) or str(fault)) from fault
    if len(content) > largest:
        raise Damaged(f"it is larger than {largest // 2**20} MiB")
    return content


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a mapping of which no name stands twice: readers differ in which of them they take."""
    names = [name for name, _ in pairs]
    for name in names if len(set(names)) < len(names) else ():
        if names.count(name) > 1:
            raise Damaged(f"it names '{name[:40]}' twice")
    return dict(pairs)


def _check(value: Any, depth: int = 0) -> None:
    """Refuse deep nesting and lone surrogates, which no schema of msgspec sees."""
    if depth > DEEPEST:
        raise Damaged(TOO_DEEP)
    if isinstance(value, str):
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as fault:
            raise Damaged(f"'{value[:40]}' holds half a sign, a lone surrogate") from fault
    elif isinstance(value, dict | list):
        for item in [*value, *value.values()] if isinstance(value, dict) else value:
            _check(item, depth + 1)


def _damaged(fault: msgspec.ValidationError) -> Damaged:
    """Return the error for msgspec's complaint, with the field in front, written a.0.b."""
    reason, steps, _ = split_complaint(fault)
    place = ".".join(name or number for name, number in steps)
    absent = re.search(r"missing required field `(.+)`", reason)
    if absent:
        name = ".".join(filter(None, (place, absent[1])))
        damaged = Damaged(f"{name} is missing")
        damaged.missing = name
        return damaged
    reason = reason.replace("`", "").replace("array", "list").replace("object", "mapping")
    due, expected, found = reason.removeprefix("Expected ").partition(", got ")
    if due != reason:
        return Damaged(f"{place or 'it'} must be {due}" + (f", not {found}" if expected else ""))
    if " must be " in reason:  # of a schema's own check, which names the field
        return Damaged(f"{place}.{reason}" if place else reason)
    return Damaged(f"{place} is wrong: {reason[:1].lower()}{reason[1:]}" if place else reason)
