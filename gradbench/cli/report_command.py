"""`gradbench report`: finished runs as one HTML file."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from gradbench.cli.tables_command import without_dirs
from gradbench.cli.words import config_dirs
from gradbench.errors import GradbenchError, unknown
from gradbench.support.progress import step
from gradbench.support.text import expand_home

HELP = """\
gradbench report [RUN ...] [results=DIR,DIR] [out=FILE] [--config-dir DIR]

Writes one HTML file that needs nothing else: what was run, all tables with their conventions and
intervals, the figures, the controls, the papers' tables that the runs fill, where everything came
from and how to repeat it. It is light or dark as the reader's system is, and can be printed.

  RUN             folder of a finished run or of a sweep, or its name under outputs/ (default:
                  every run under results/, or in the folders of results=)
  out=FILE        default: outputs/report.html
"""
KEYS = ("results", "out")
FOLDERS = ("results",)
OUT = Path("outputs/report.html")


def main(words: list[str]) -> None:
    """Run the command."""
    if any(word in ("-h", "--help") for word in words):
        print(HELP)
        return
    names, folders, out = _read(without_dirs(words))
    dirs = config_dirs(words)
    with step("loading libraries"):
        from gradbench.report.page.document import report
        from gradbench.report.page.source import find, read

    with step("reading the runs"):
        sources = read([_place(name) for name in names], dirs) if names else find(folders, dirs)
    text = report(sources, shlex.join(["gradbench", "report", *words]), dirs)
    try:
        out.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as fault:
        raise GradbenchError(f"cannot write out={out}: {fault.strerror}") from fault
    print(f"{out}: {len(sources)} run{'s' * (len(sources) > 1)}, {len(text) / 2**20:.1f} MiB")


def _read(words: Sequence[str]) -> tuple[list[str], list[Path], Path]:
    """Return names of runs, folders that hold runs, and the file to write.

    Raises:
        GradbenchError: for a word that means nothing here, before any work.
    """
    names, said = [], {}
    for word in words:
        key, equals, value = word.partition("=")
        if word.startswith("-"):
            raise unknown("option of report", word, ("--help", "--config-dir"))
        if equals and key not in KEYS and not Path(word).exists():
            raise unknown("setting of report", key, KEYS)
        if equals and key in KEYS:
            said[key] = value
        else:
            names.append(word)
    if names and "results" in said:
        raise GradbenchError(
            f"either name runs ({names[0]}) or folders that hold them (results={said['results']})"
        )
    folders = [Path(f).expanduser() for f in said.get("results", "").split(",") if f]
    for folder in folders:
        if not folder.is_dir():
            raise GradbenchError(f"results={folder}: there is no such folder")
    return names, folders or [Path(name) for name in FOLDERS], _out(said.get("out", ""))


def _out(given: str) -> Path:
    """Return the file to write; the folder of the usual one is made."""
    out = Path(given).expanduser() if given else OUT
    if not given:
        out.parent.mkdir(exist_ok=True)
    if out.is_dir():
        raise GradbenchError(f"out={out} is a folder: name a file in it, as out={out}/report.html")
    if not out.parent.is_dir():
        raise GradbenchError(f"out={out}: there is no folder {out.parent} to write to")
    return out


def _place(name: str) -> Path:
    """Return the folder of a run by its path or its name under outputs/."""
    own, usual = expand_home(name), Path("outputs") / name
    return usual if not os.path.lexists(own) and os.path.isdir(usual) else own
