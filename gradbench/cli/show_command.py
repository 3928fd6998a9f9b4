"""`gradbench show`: the tables of a finished run."""

from __future__ import annotations

import os
from pathlib import Path

from gradbench.errors import GradbenchError
from gradbench.support.paths import expanded, shown
from gradbench.support.progress import step

HELP = """\
gradbench show [RUN] [--all]

Prints the main table of a run's folder (default: the latest under outputs/); --all prints
table.md, with every metric and the controls.
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
    folder = find(names[0]) if names else latest()
    if "--all" in words:
        try:
            print((folder / "table.md").read_text(encoding="utf-8"), end="")
        except OSError as fault:
            raise GradbenchError(
                f"{folder} holds no table.md ({fault.strerror}): `gradbench show {folder}` prints "
                "the main table, and the run's command makes it anew"
            ) from fault
        return
    with step(f"reading {shown(folder)}"):
        from gradbench.reporting.run_folder import RunFolder

        text = RunFolder.open(folder).terminal()
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
    for folder in (expanded(name), Path("outputs") / name):
        if os.path.isfile(folder / "run.json"):  # whatever the name: too long ones too
            return folder
    there = ", ".join(shown(p) for p in runs()) or "none yet"
    raise GradbenchError(f"no finished run at {shown(name)}; runs here: {there}")


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
