"""Values, names and paths as text: in messages, in names of files, in spreadsheets."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from pathlib import Path
from typing import Any

from gradbench.errors import GradbenchError, printable

LONGEST_VALUE = 60
"""Characters of a value that a message shows."""
LONGEST_NAME = 100
"""Bytes of a name: it becomes a part of names of files."""
SIGNS = "_-.+"
MISSING = ("NA", "NaN", "nan", "NULL", "Null", "null", "None", "none", "n.a.", "N.A.", "IND", "NAN")
"""Names that readers of CSV files take for an empty cell."""
RULE = (
    "a name begins with a letter or digit and goes on with letters, digits and "
    f"{' '.join(SIGNS.strip())}, at most {LONGEST_NAME} of them, and is none that stands for an "
    "empty cell in CSV files, such as NA or null"
)


def format_value(value: Any) -> str:
    """Return a value as YAML would have it, on one line and shortened."""
    if value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, int) and value.bit_length() >= 1024:  # Python refuses to write it
        text = f"a number of {value.bit_length()} bits"
    else:
        text = printable(str(value))
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def check_name(key: str, name: object) -> str:
    """Return a name that stands in rows, pictures and names of files.

    Raises:
        GradbenchError: if it breaks the rule.
    """
    valid = isinstance(name, str) and name[:1].isalnum() and all(_in_names(c) for c in name)
    if not valid or name in MISSING or len(name.encode()) > LONGEST_NAME:
        raise GradbenchError(f"{key}={format_value(name)}: {RULE}")
    return name


def to_name(text: str) -> str:
    """Return the name that is made of a user's file or folder: what the rule forbids becomes `_`.

    >>> to_name("My Photos (2020)")
    'My_Photos_2020'
    """
    name = "_".join("".join(c if _in_names(c) else " " for c in text).split()).lstrip(SIGNS)
    name = name.encode()[:LONGEST_NAME].decode(errors="ignore") or "unnamed"
    return f"{name}_" if name in MISSING else name


def _in_names(character: str) -> bool:
    return character in SIGNS or unicodedata.category(character)[0] in "LMN"


def file_name(text: str, longest: int = 220) -> str:
    """Return a part of a file's name for what is made of names; none is lost where it is cut.

    >>> file_name("gradient@gaussian_noise 3")
    'gradient@gaussian_noise_3'
    """
    name = re.sub(r"[^\w@.+-]+", "_", text)
    if len(name.encode()) <= longest:
        return name
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{name.encode()[: longest - 9].decode(errors='ignore')}-{digest}"


def path_text(path: str | os.PathLike) -> str:
    r"""Return a path as valid text; bytes of it that are none are written as Python does.

    >>> print(path_text("caf\udce9.png"))
    caf\xe9.png
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def expand_home(path: str | os.PathLike) -> Path:
    """Return a path with the home folder in place of its ~.

    Raises:
        GradbenchError: if it names the home of somebody unknown here.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as fault:
        raise GradbenchError(
            f"{printable(path)}: there is no user of that name here, write the whole path"
        ) from fault


_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def for_spreadsheet(text: str) -> str:
    """Return a text cell that no spreadsheet takes for a formula; numbers stay what they are.

    >>> for_spreadsheet("=1+1"), for_spreadsheet("-0.5"), for_spreadsheet("a-b")
    ("'=1+1", '-0.5', 'a-b')
    """
    return f"'{text}" if _FORMULA.match(text) and not _is_number(text) else text


def from_spreadsheet(text: str) -> str:
    """Return the text that `for_spreadsheet` made a cell of.

    >>> from_spreadsheet("'=1+1"), from_spreadsheet("'quoted'")
    ('=1+1', "'quoted'")
    """
    return text[1:] if text[:1] == "'" and _FORMULA.match(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
