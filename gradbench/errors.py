"""The exceptions that reach the user as a sentence instead of a traceback, and text fit for it."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections.abc import Iterable


class GradbenchError(Exception):
    """A fault of the input or of the machine; its text names the culprit and the valid choices."""


class MissingData(GradbenchError):
    """Images that are not here, or are of no use; a challenge becomes a row without numbers."""


class Faulty(GradbenchError):
    """A fault of one class from outside the package: it is left out, and the run goes on."""


MANY = 40
"""Of more choices than this only the nearest are named."""


def unknown(kind: str, name: str, choices: Iterable[str]) -> GradbenchError:
    """Return the error for a name that is not among the valid choices, nearest choices first.

    The name itself, which may be valid elsewhere, is never proposed.
    """
    name = str(name)  # anything may be given in the place of a name
    choices = sorted(choice for choice in choices if choice != name)
    near = difflib.get_close_matches(name, choices, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    if near and len(choices) > MANY:
        valid = ""
    else:
        valid = f"valid choices are {', '.join(choices)}" if choices else "there are none"
    return GradbenchError(f"no {kind} named '{printable(name)}': {hint}{valid}".rstrip())


def printable(text: str | os.PathLike) -> str:
    r"""Return a text or path on one line that cannot steer a terminal.

    Controls, invisible characters, lone surrogates and line breaks are escaped as Python writes
    them; what is escaped already stays as it is.

    >>> print(printable("two\nlines, \x1b[1mbold\x1b[0m, \ud800"))
    two\nlines, \x1b[1mbold\x1b[0m, \ud800
    """
    text = str(text)
    if text.isprintable():  # by far the most, and done in C
        return text
    return "".join(
        c.encode("unicode_escape").decode() if _steers(unicodedata.category(c)) else c for c in text
    )


def _steers(category: str) -> bool:
    """Tell controls, invisible characters, surrogates and line breaks from what is printed."""
    return category[0] == "C" or category in ("Zl", "Zp")
