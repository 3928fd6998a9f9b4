"""The command in this process, and the one finished run that the end-to-end tests look at."""

import csv
import json
import os
import shutil
import sys
from collections.abc import Iterable
from contextlib import chdir, redirect_stderr, redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import torch

from gradbench.cli import main
from gradbench.store import Store

SMALL = (
    *("experiment=quickstart", "training.epochs=2", "limit=200", "evaluation.replicates=100"),
    *("challenges=[patches,gaussian_noise,fgsm,svhn]", "levels=[5]"),
    *("detectors=[msp,gradient_logistic]", "data.root=nowhere", "data.download=false"),
    *("out=run", "store=store"),
)
"""A quick experiment with a hole: SVHN is never there."""
TINY = (
    *SMALL[:4],
    *("challenges=[gaussian_noise]", *SMALL[5:]),
    *("controls.random_labels=false", "controls.random_split=false", "controls.round_trip=false"),
    "controls.memorisation=false",
)
"""The same with one challenge and the identity control alone."""


class Ran(NamedTuple):
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


def gradbench(*words: str, cwd: Path | str = ".", figures: bool = False) -> Ran:
    """Run the command in this process, on one thread, by default without drawing figures."""
    out, err, code = StringIO(), StringIO(), 0
    torch.set_num_threads(1)
    # a busy machine makes any step long: tests of messages do not depend on it
    drawn = {"gradbench.support.progress._Watch.tell": lambda *_: None}
    if not figures:
        drawn["gradbench.report.run_folder._draw"] = lambda *_: None
    with (
        chdir(cwd),
        patch.object(sys, "argv", ["gradbench", *words]),
        patch.object(sys, "path", list(sys.path)),
        patch.dict(os.environ),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        patches = [patch(name, new) for name, new in drawn.items()]
        for one in patches:
            one.start()
        try:
            main(words)
        except SystemExit as stop:
            code = stop.code
        finally:
            for one in patches:
                one.stop()
    return Ran(code, out.getvalue(), err.getvalue())


@cache
def reference(base: Path) -> Path:
    """Return the folder in which the small run was done once; nobody writes there again.

    Args:
        base: pytest's folder for the whole session, `tmp_path_factory.getbasetemp()`.
    """
    folder = base / "reference"
    folder.mkdir()
    ran = gradbench("run", *SMALL, cwd=folder, figures=True)
    assert ran.code == 0, ran.err
    return folder


def copy_of(folder: Path, place: Path) -> Path:
    """Copy a finished run with its store, so that a test may change it."""
    shutil.copytree(folder, place, dirs_exist_ok=True)
    return place


def rows(folder: Path, **wanted: str) -> list[dict[str, str]]:
    """Return the rows of `run/results.csv` in a folder whose columns hold the wanted texts."""
    with open(folder / "run/results.csv", newline="", encoding="utf-8") as stream:
        found = list(csv.DictReader(stream))
    return [row for row in found if all(row[name] == text for name, text in wanted.items())]


def about(folder: Path) -> dict:
    """Return `run/run.json` of a folder."""
    return json.loads((folder / "run/run.json").read_text())


def kept(folder: Path) -> set[tuple[str, str]]:
    """Return (step, key) of every product in `store/` of a folder."""
    return {(path.parent.name, path.name) for path, _ in Store(folder / "store").products()}


def steps(products: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Return how many of some products there are of each step."""
    names = sorted(step for step, _ in products)
    return {name: names.count(name) for name in dict.fromkeys(names)}


def same_results(folder: Path, other: Path) -> bool:
    """Tell whether two runs left the same rows and the same table, byte for byte."""
    return all(
        (folder / "run" / name).read_bytes() == (other / "run" / name).read_bytes()
        for name in ("results.csv", "table.md")
    )


def one_sentence(ran: Ran) -> str:
    """Return the sentence with which a command ended, having checked that there is only one."""
    assert ran.code == 2, (ran.code, ran.err)
    assert "Traceback" not in ran.err
    lines = ran.err.splitlines()
    assert len(lines) == 1, ran.err
    assert lines[0].startswith("gradbench: ")
    return lines[0].removeprefix("gradbench: ")
