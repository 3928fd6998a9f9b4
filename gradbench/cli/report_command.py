"""`gradbench report`: finished runs as one HTML file."""

from __future__ import annotations

import os
import shlex
from argparse import Namespace
from pathlib import Path

from gradbench.cli.arguments import (
    Parser,
    add_config_dir,
    existing_folders,
    split_words,
    with_dirs,
)
from gradbench.cli.show_command import run_places
from gradbench.errors import GradbenchError
from gradbench.support.progress import step

DESCRIPTION = """\
Writes one HTML file that needs nothing else: what was run, all tables with their conventions and
intervals, the figures, the controls, the papers' tables that the runs fill, where everything came
from and how to repeat it. It is light or dark as the reader's system is, and can be printed.
"""


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    parser.description = DESCRIPTION
    parser.add_argument(
        "words", nargs="*", metavar="RUN | results=DIR,DIR | out=FILE",
        help="folder of a finished run or of a sweep, or its name under outputs/ (without any: "
        "every run under results/, or in the folders of results=); out is outputs/report.html "
        "by default",
    )  # fmt: skip
    add_config_dir(parser)


def main(args: Namespace) -> None:
    """Write the report."""
    names, settings, _ = split_words(args.words, ("results", "out"), "report")
    results, dirs = settings.get("results", ""), args.config_dir
    if names and results:
        raise GradbenchError(
            f"either name runs ({names[0]}) or folders that hold them (results={results})"
        )
    folders = existing_folders("results", results) or [Path("results")]
    out = Path(settings.get("out") or "outputs/report.html").expanduser()
    if not settings.get("out"):
        out.parent.mkdir(exist_ok=True)
    if out.is_dir():
        raise GradbenchError(f"out={out} is a folder: name a file in it, as out={out}/report.html")
    if not out.parent.is_dir():
        raise GradbenchError(f"out={out}: there is no folder {out.parent} to write to")
    with step("loading libraries"):
        from gradbench.report.page import open_runs, report, runs_below

    with step("reading the runs"):
        runs = open_runs(list(map(_run_folder, names))) if names else runs_below(folders)
    text = report(runs, shlex.join(["gradbench", "report", *with_dirs(args.words, dirs)]), dirs)
    try:
        out.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as fault:
        raise GradbenchError(f"cannot write out={out}: {fault.strerror}") from fault
    print(f"{out}: {len(runs)} run{'s' * (len(runs) > 1)}, {len(text) / 2**20:.1f} MiB")


def _run_folder(name: str) -> Path:
    path, by_name = run_places(name)
    return by_name if not os.path.lexists(path) and os.path.isdir(by_name) else path
