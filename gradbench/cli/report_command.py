"""`gradbench report`: finished runs as one HTML file."""

from __future__ import annotations

import os
import shlex
from argparse import Namespace
from pathlib import Path

from gradbench.cli.arguments import Parser, add_config_dir, existing_folders, split_settings
from gradbench.cli.show_command import places
from gradbench.errors import GradbenchError
from gradbench.support.progress import step

DESCRIPTION = """\
Writes one HTML file that needs nothing else: what was run, all tables with their conventions and
intervals, the figures, the controls, the papers' tables that the runs fill, where everything came
from and how to repeat it. It is light or dark as the reader's system is, and can be printed.
"""
KEYS = ("results", "out")
FOLDERS = "results"
OUT = Path("outputs/report.html")


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    parser.description = DESCRIPTION
    parser.add_argument(
        "words", nargs="*", metavar="RUN | results=DIR,DIR | out=FILE",
        help="folder of a finished run or of a sweep, or its name under outputs/ (without any: "
        "every run under results/, or in the folders of results=); out is outputs/report.html "
        "where not given",
    )  # fmt: skip
    add_config_dir(parser)


def main(args: Namespace) -> None:
    """Write the report."""
    names, given = split_settings(args.words, KEYS, "report")
    if names and "results" in given:
        raise GradbenchError(
            f"either name runs ({names[0]}) or folders that hold them (results={given['results']})"
        )
    folders = existing_folders("results", given.get("results", "")) or [Path(FOLDERS)]
    out = _out(given.get("out", ""))
    with step("loading libraries"):
        from gradbench.report.page import open_runs, report, runs_below

    with step("reading the runs"):
        dirs = args.config_dir
        runs = open_runs([_place(name) for name in names]) if names else runs_below(folders)
    words = [*(f"--config-dir={folder}" for folder in dirs), *args.words]
    text = report(runs, shlex.join(["gradbench", "report", *words]), dirs)
    try:
        out.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as fault:
        raise GradbenchError(f"cannot write out={out}: {fault.strerror}") from fault
    print(f"{out}: {len(runs)} run{'s' * (len(runs) > 1)}, {len(text) / 2**20:.1f} MiB")


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
    own, usual = places(name)
    return usual if not os.path.lexists(own) and os.path.isdir(usual) else own
