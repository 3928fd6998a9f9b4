"""Values checked against the type that is due, and what is wrong with them in one sentence."""

from __future__ import annotations

import difflib
import math
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from gradbench.errors import GradbenchError, unknown
from gradbench.support.text import format_value

LARGEST = 2**53
"""Whole numbers up to this are exact in every format that a run writes."""
WORDS: dict[Any, str] = {
    bool: "a switch",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "null",
}
PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}


def check_type(
    value: Any, due: Any, key: str = "", kind: str = "setting", also: Sequence[str] = ()
) -> None:
    """Refuse a value that is not of the type that is due.

    Args:
        value: plain data, as YAML and JSON give it.
        due: a type of Python: of numbers and text with bounds, lists, mappings, `msgspec.Struct`.
        key: name of the value in messages, empty for the whole configuration.
        kind: of a name that a struct does not know, in messages.
        also: names that would be valid in its place.

    Raises:
        GradbenchError: naming the key, what was given and what is due.
    """
    for place, number in _numbers(value, key):
        if isinstance(number, float) and not math.isfinite(number):
            raise GradbenchError(f"{place}={number}: write a finite number")
        if isinstance(number, int) and abs(number) > LARGEST:
            raise GradbenchError(
                f"{place}={format_value(number)}: write a number of at most {LARGEST}"
            )
    try:
        msgspec.convert(value, due)
    except msgspec.ValidationError as fault:
        raise _refused(fault, value, due, key, kind, also) from None
    except UnicodeEncodeError as fault:  # which a path may hold, and no other setting
        raise GradbenchError(
            f"{key or 'a setting'}: {format_value(fault.object)} is no text"
        ) from None


def is_plain_type(due: Any) -> bool:
    """Tell whether a type holds plain data alone, so that the content of a file can be checked."""
    if not _is_plain(due):
        return False
    try:
        _fits(None, due)
    except TypeError:  # of a union that msgspec cannot tell apart
        return False
    return True


def _is_plain(due: Any) -> bool:
    if due in (Any, *WORDS, list, tuple, dict, Sequence, Mapping):
        return True
    origin, inside = get_origin(due), get_args(due)
    if origin is Literal:
        return all(type(one) in (str, int, type(None)) for one in inside)
    if origin is Annotated:
        return _is_plain(inside[0])
    known = (Union, types.UnionType, list, tuple, dict, Sequence, Mapping)
    return origin in known and all(one is ... or _is_plain(one) for one in inside)


def setting_names(struct: type[msgspec.Struct], prefix: str = "") -> list[str]:
    """Return the names of all settings of a struct, those inside its sections too."""
    names = []
    for name, due in get_type_hints(struct, include_extras=True).items():
        names.append(prefix + name)
        for section in filter(_is_struct, _options(due)):
            names += setting_names(section, f"{prefix}{name}.")
    return names


def describe_type(due: Any) -> str:
    """Return what a type asks for in words.

    >>> describe_type(Annotated[int, msgspec.Meta(ge=1)] | None)
    'a whole number, at least 1, or null'
    """
    *parts, last = (part for option in _options(due) for part in _choices(option) or [_one(option)])
    comma = "," if any("," in part for part in parts) else ""
    return f"{', '.join(parts)}{comma} or {last}" if parts else last


def _choices(due: Any) -> list[str]:
    """Return the values of a type that has few."""
    if due is bool:
        return ["true", "false"]
    return [format_value(one) for one in get_args(due)] if get_origin(due) is Literal else []


def _one(due: Any) -> str:
    if get_origin(due) is Annotated:
        kind, meta = get_args(due)
        ends = {"at least": meta.ge, "above": meta.gt, "at most": meta.le, "below": meta.lt}
        bounds = [f"{how} {end}" for how, end in ends.items() if end is not None]
        return f"{describe_type(kind)}, {' and '.join(bounds)}"
    if due in WORDS:
        return WORDS[due]
    if _is_struct(due) or (get_origin(due) or due) in (dict, Mapping):
        return "a mapping {NAME: value}"
    inside = [one for one in get_args(due) if one is not ...] or [Any]
    count = f"{len(inside)} " if len(inside) > 1 else ""
    kind = get_args(inside[0])[0] if get_origin(inside[0]) is Annotated else inside[0]
    return f"a list of {count}{PLURALS.get(kind, 'entries')}"


def _options(due: Any) -> list[Any]:
    return list(get_args(due)) if get_origin(due) in (Union, types.UnionType) else [due]


def _is_struct(due: Any) -> bool:
    return isinstance(due, type) and issubclass(due, msgspec.Struct)


def split_complaint(fault: msgspec.ValidationError) -> tuple[str, list[tuple[str, str]], bool]:
    """Return the reason of msgspec's complaint, the way to its culprit, and whether it is a key.

    The way is pairs of a field's name and "", or of "" and a place in a list (`...` stands for any
    value of a mapping).
    """
    text, _, path = str(fault).partition(" - at ")
    steps = re.findall(r"\.([^.\[\]`]+)|\[(\d+|\.\.\.)\]", path)
    return text, steps, path.startswith("`key` in ")


def _refused(
    fault: msgspec.ValidationError, value: Any, due: Any, key: str, kind: str, also: Sequence[str]
) -> GradbenchError:
    """Return the error for msgspec's complaint, with what was given and what is due."""
    text, steps, strange = split_complaint(fault)
    for name, place in steps:
        step: Any = name or place
        due = _inside(due, name, step)
        if step == "...":
            step = next(k for k, v in value.items() if not _fits(k, str) or not _fits(v, due))
            key = f"{key}.{format_value(step)}"
        elif place:
            step = int(place)
            key = f"{key}[{step}]"
        else:
            key = f"{key}.{step}" if key else step
        value = value[step]
    if missing := re.search(r"missing required field `(.*)`$", text):
        return GradbenchError(f"{key}={format_value(value)}: {missing[1]} is missing")
    if strange:
        odd = next(name for name in value if not isinstance(name, str))
        return GradbenchError(f"{key or 'settings'}: {format_value(odd)} stands where a name must")
    if extra := re.search(r"unknown field `(.*)`$", text, re.S):
        struct = next(one for one in _options(due) if _is_struct(one))
        before = f"{key}." if key else ""
        return unknown(kind, before + extra[1], [*setting_names(struct, before), *also])
    if "length" in text and isinstance(value, list):
        return GradbenchError(f"{key}={format_value(value)}: write {describe_type(due)}")
    hint = ""
    if due in (str, str | None) and not isinstance(value, str) and value is not None:
        hint = "; what reads like a number, a switch or a list needs two pairs of quotes: "
        hint += f"{key}=\"'…'\""
    known = [choice for option in _options(due) for choice in _choices(option)]
    near = difflib.get_close_matches(format_value(value), known, n=1)
    guess = f"did you mean {near[0]}? " if near else ""
    return GradbenchError(f"{key}={format_value(value)}: {guess}write {describe_type(due)}{hint}")


def _inside(due: Any, name: str, step: str) -> Any:
    """Return the type of what stands inside a value of a type: under a name, or in a row."""
    for one in _options(due):
        one = get_args(one)[0] if get_origin(one) is Annotated else one
        if name and _is_struct(one):
            return get_type_hints(one, include_extras=True)[name]
        if get_origin(one) in ((dict, Mapping) if step == "..." else (list, tuple, Sequence)):
            return get_args(one)[-1 if step == "..." else 0]
    return Any


def _fits(value: Any, due: Any) -> bool:
    try:
        msgspec.convert(value, due)
    except msgspec.ValidationError:
        return False
    return True


def _numbers(value: Any, key: str) -> Iterator[tuple[str, int | float]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _numbers(item, f"{key}.{format_value(name)}" if key else format_value(name))
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for place, item in enumerate(value):
            yield from _numbers(item, f"{key}[{place}]")
    elif isinstance(value, int | float):
        yield key, value
