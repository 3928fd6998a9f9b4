"""File names as people write them, and as a terminal can show them."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from gradbench.errors import GradbenchError


def shown(name: str | os.PathLike) -> str:
    r"""Return a text on one line; what would steer a terminal is written as Python writes it.

    >>> print(shown("two\nlines, \x1b[1mbold\x1b[0m"))
    two\nlines, \x1b[1mbold\x1b[0m
    """
    return "".join(
        c.encode("unicode_escape").decode() if _steers(unicodedata.category(c)) else c
        for c in str(name)
    )


def as_text(name: str | os.PathLike) -> str:
    r"""Return a file name as valid text; bytes of it that are none are written as Python does.

    >>> print(as_text("caf\udce9.png"))
    caf\xe9.png
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _steers(category: str) -> bool:
    """Tell controls, invisible signs, halves of signs and breaks of lines from what is printed."""
    return category[0] == "C" or category in ("Zl", "Zp")


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
