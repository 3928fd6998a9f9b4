"""Keeps what lies in the working folder, which may be a stranger's, from being imported."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

SETTINGS = "matplotlibrc"
"""A file that matplotlib reads from the working folder when it is imported."""


def leave_out_here() -> None:
    """Take the working folder off the places that modules are imported from.

    Python itself puts it there for `python -m` and `python -c`, and for an empty entry of
    PYTHONPATH. It stays where PYTHONPATH names it, where it is installed, and where gradbench
    itself stands. Processes that are started from here leave it out too.
    """
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    try:
        here = os.getcwd()
    except FileNotFoundError:  # removed meanwhile: nothing can be imported from it
        return
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = {str(Path(__file__).parents[2]), *(os.path.abspath(one) for one in named if one)}
    first = 1 + len(named)  # entries that do not come from an installation
    found = [
        entry
        for place, entry in enumerate(sys.path)
        if entry and (place >= first or os.path.abspath(entry) != here or here in kept)
    ]
    sys.path[:] = found
    if os.path.lexists(SETTINGS):
        with contextlib.chdir(Path(__file__).parent):
            import matplotlib  # noqa: F401
