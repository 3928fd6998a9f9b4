"""One rule for names, and what is made of others' names for files and for spreadsheets."""

from __future__ import annotations

import hashlib
import re
import unicodedata

from gradbench.errors import GradbenchError
from gradbench.support.described import written

LONGEST = 100
"""Bytes of a name: it becomes a part of names of files."""
SIGNS = "_-.+"
MISSING = ("NA", "NaN", "nan", "NULL", "Null", "null", "None", "none", "n.a.", "N.A.", "IND", "NAN")
"""Names that readers of CSV files take for an empty cell."""
RULE = (
    "a name begins with a letter or digit and goes on with letters, digits and "
    f"{' '.join(SIGNS.strip())}, at most {LONGEST} of them, and is none that stands for an empty "
    "cell in CSV files, such as NA or null"
)


def check_name(key: str, name: object) -> str:
    """Return a name that stands in rows, pictures and names of files.

    Raises:
        GradbenchError: if it breaks the rule.
    """
    if not isinstance(name, str) or not _valid(name):
        raise GradbenchError(f"{key}={written(name)}: {RULE}")
    return name


def as_name(text: str) -> str:
    """Return the name that is made of a user's file or folder: what the rule forbids becomes `_`.

    >>> as_name("My Photos (2020)")
    'My_Photos_2020'
    """
    name = "".join(c if _letter(c) or c in SIGNS else " " for c in text)
    name = "_".join(name.split()).lstrip(SIGNS)
    name = name.encode()[:LONGEST].decode(errors="ignore") or "unnamed"
    return f"{name}_" if name in MISSING else name


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


def for_spreadsheet(text: str) -> str:
    """Return a text cell that no spreadsheet takes for a formula; numbers stay what they are.

    >>> for_spreadsheet("=1+1"), for_spreadsheet("-0.5"), for_spreadsheet("a-b")
    ("'=1+1", '-0.5', 'a-b')
    """
    return f"'{text}" if _FORMULA.match(text) and not _number(text) else text


def from_spreadsheet(text: str) -> str:
    """Return the text that `for_spreadsheet` made a cell of.

    >>> from_spreadsheet("'=1+1"), from_spreadsheet("'quoted'")
    ('=1+1', "'quoted'")
    """
    return text[1:] if text[:1] == "'" and _FORMULA.match(text) else text


_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _valid(name: str) -> bool:
    return (
        name not in MISSING
        and name[:1].isalnum()
        and all(_letter(c) or c in SIGNS for c in name)
        and len(name.encode()) <= LONGEST
    )


def _letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"
