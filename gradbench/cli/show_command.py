"""`gradbench show`: the tables of a finished run."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from gradbench.errors import GradbenchError, printable
from gradbench.support.progress import step
from gradbench.support.text import expand_home

HELP = """\
gradbench show [RUN] [--all]

Prints the main table of a run's folder (default: the latest under outputs/); --all prints
table.md, with every metric and the controls. Of the folder of a sweep it lists the runs.
"""


def main(words: list[str]) -> None:
    """Run the command."""
    if any(w in ("-h", "--help") for w in words):
        print(HELP)
        return
    names = [w for w in words if not w.startswith("-")]
    for word in words:
        if word.startswith("-") and word != "--all":
            raise GradbenchError(f"show knows no {word}: --all, --help")
    from gradbench.report.finished import Finished
    from gradbench.report.papers.runs import is_run, jobs

    for folder in _places(names[0]) if names else ():
        if is_run(folder):
            break
        if inside := jobs(folder):
            print(f"{printable(folder)} is the folder of a sweep, its runs are:")
            print("\n".join(f"  gradbench show {shlex.quote(printable(job))}" for job in inside))
            return
    folder = find(names[0]) if names else latest()
    if "--all" in words:
        print(Finished(folder).text("table.md"), end="")
        return
    with step(f"reading {printable(folder)}"):
        from gradbench.report.run_folder import terminal

        text = terminal(folder)
    print(text)


def runs(root: Path = Path("outputs")) -> list[Path]:
    """Return the folders of finished runs, the latest last."""
    found = [p.parent for pattern in ("*/run.json", "*/*/run.json") for p in root.glob(pattern)]
    return sorted(found, key=lambda p: (p / "run.json").stat().st_mtime)


def find(name: str) -> Path:
    """Return the folder of a run by its path or its name under outputs/.

    Raises:
        GradbenchError: if there is none, naming those that there are.
    """
    for folder in _places(name):
        if os.path.isfile(folder / "run.json"):  # whatever the name: too long ones too
            return folder
    from gradbench.report.papers.runs import jobs

    there = [*(job for folder in _places(name) for job in jobs(folder)), *runs()]
    names = ", ".join(map(printable, there)) or "none yet"
    raise GradbenchError(f"no finished run at {printable(name)}; runs here: {names}")


def latest() -> Path:
    """Return the folder of the latest run.

    Raises:
        GradbenchError: if there is none.
    """
    there = runs()
    if not there:
        raise GradbenchError("no finished run under outputs/: start with `gradbench run "
                             "experiment=quickstart`, or name a folder")  # fmt: skip
    return there[-1]


def _places(name: str) -> tuple[Path, Path]:
    """Return where a run is looked for by its path or its name."""
    return expand_home(name), Path("outputs") / name
