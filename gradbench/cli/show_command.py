"""`gradbench show`: the tables of a finished run."""

from __future__ import annotations

import os
import shlex
from argparse import Namespace
from pathlib import Path

from gradbench.cli.arguments import Parser
from gradbench.errors import GradbenchError, printable
from gradbench.support.progress import step
from gradbench.support.text import expand_home

OUTPUTS = Path("outputs")


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    parser.description = (
        "Prints the main table of a run. Of the folder of a sweep it lists the runs."
    )
    parser.add_argument(
        "run", nargs="?", metavar="RUN",
        help="a run's folder, or its name under outputs/; the latest there without it",
    )  # fmt: skip
    parser.add_argument(
        "--all", action="store_true", help="print table.md, with every metric and the controls"
    )


def main(args: Namespace) -> None:
    """Print the table of a run."""
    from gradbench.report.finished_run import FinishedRun, missing_files, sweep_runs

    for folder in run_places(args.run) if args.run else ():
        if not missing_files(folder):
            break
        if inside := sweep_runs(folder):
            print(f"{printable(folder)} is the folder of a sweep, its runs are:")
            print("\n".join(f"  gradbench show {shlex.quote(printable(job))}" for job in inside))
            return
    if args.run:
        folder = find_run(args.run)
    elif runs := finished_runs():
        folder = runs[-1]
    else:
        raise GradbenchError(
            "no finished run under outputs/: start with `gradbench run experiment=quickstart`, "
            "or name a folder"
        )
    if args.all:
        print(FinishedRun(folder).text("table.md"), end="")
        return
    with step(f"reading {printable(folder)}"):
        from gradbench.report.run_folder import terminal

        text = terminal(folder)
    print(text)


def finished_runs() -> list[Path]:
    """Return the folders of finished runs under outputs/, the latest last."""
    files = [path for pattern in ("*/run.json", "*/*/run.json") for path in OUTPUTS.glob(pattern)]
    return [path.parent for path in sorted(files, key=lambda path: path.stat().st_mtime)]


def find_run(name: str) -> Path:
    """Return the folder of a run by its path or its name under outputs/.

    Raises:
        GradbenchError: if there is none, naming those that there are.
    """
    for folder in run_places(name):
        if os.path.isfile(folder / "run.json"):  # whatever the name: too long ones too
            return folder
    from gradbench.report.finished_run import sweep_runs

    there = [*(job for folder in run_places(name) for job in sweep_runs(folder)), *finished_runs()]
    names = ", ".join(map(printable, there)) or "none yet"
    raise GradbenchError(f"no finished run at {printable(name)}; runs here: {names}")


def run_places(name: str) -> tuple[Path, Path]:
    """Return where a run is looked for by its path or its name."""
    return expand_home(name), OUTPUTS / name
