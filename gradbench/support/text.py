"""Text of strangers, as a terminal, a table and a page can show it."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    r"""Return a text on one line; what would steer a terminal is written as Python writes it.

    Controls, invisible signs, lone surrogates and breaks of lines are escaped; what is escaped
    already stays as it is.

    >>> print(printable("two\nlines, \x1b[1mbold\x1b[0m, \ud800"))
    two\nlines, \x1b[1mbold\x1b[0m, \ud800
    """
    if text.isprintable():  # by far the most, and done in C
        return text
    return "".join(
        c.encode("unicode_escape").decode() if _steers(unicodedata.category(c)) else c for c in text
    )


def _steers(category: str) -> bool:
    """Tell controls, invisible signs, halves of signs and breaks of lines from what is printed."""
    return category[0] == "C" or category in ("Zl", "Zp")
