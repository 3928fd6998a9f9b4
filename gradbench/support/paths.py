"""File names as people write them, and as a terminal can show them."""

from __future__ import annotations

import os
from pathlib import Path

from gradbench.errors import GradbenchError
from gradbench.support.text import printable


def shown(name: str | os.PathLike) -> str:
    """Return a name, or any text with names in it, as it can be printed; see `printable`."""
    return printable(str(name))


def as_text(name: str | os.PathLike) -> str:
    r"""Return a file name as valid text; bytes of it that are none are written as Python does.

    >>> print(as_text("caf\udce9.png"))
    caf\xe9.png
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def expanded(place: str | os.PathLike) -> Path:
    """Return a path with the home folder in place of its ~.

    Raises:
        GradbenchError: if it names the home of somebody unknown here.
    """
    try:
        return Path(place).expanduser()
    except RuntimeError as fault:
        raise GradbenchError(
            f"{shown(place)}: there is no user of that name here, write the whole path"
        ) from fault


def where_to_look(reason: str) -> str:
    """Return what to do about a module that is not found, "" for another reason."""
    if "No module named" not in reason:
        return ""
    return (
        ": PYTHONPATH=DIR names the folder in which it lies, as --config-dir DIR does for run, "
        "sweep, plan and list"
    )
