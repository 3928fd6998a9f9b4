"""Compares every number in README.md and results/ with the rows that it comes from.

A table of README.md stands between `<!-- results: PATH/results.csv.gz -->` and `<!-- /results -->`:
each number must be the rounding of one in the rows of the challenge, level and detector that its
row and column name. A kept run's table.md must be what its rows give, its files those that its
run.json lists; the papers' tables what the print and the kept runs give; weights must have the
SHA-256 of `results/weights/SHA256SUMS`. `findings.py --check` compares FINDINGS.md.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from gradbench.errors import GradbenchError
from gradbench.report.finished_run import FinishedRun, find_runs
from gradbench.report.papers import document
from gradbench.report.papers.fill import fill, to_csv
from gradbench.report.papers.table import read_table
from gradbench.report.run_tables import write_markdown
from gradbench.run.rows import CHANCES, read_csv
from gradbench.store import file_digest

BLOCK = re.compile(r"<!-- results: (\S+) -->\n(.*?)<!-- /results -->", re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e-?\d+)?(?![\w.]*\w)")
NAMES = {"challenge": "challenge", "control": "challenge", "level": "level", "detector": "method"}
"""Header of a column that says what is measured -> the column of the rows."""


def check_readme(path: Path) -> Iterator[str]:
    """Yield what is wrong with the tables of a README."""
    text = path.read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    if text.count("<!-- results:") != len(blocks):
        yield f"{path.name}: a mark `<!-- results: … -->` has no `<!-- /results -->`"
    for file, table in blocks:
        try:
            rows = read_csv(path.parent / file)
        except GradbenchError as fault:
            yield f"{path.name}: {fault}"
            continue
        header, *lines = (
            [cell.strip(" `*") for cell in line.strip().strip("|").split("|")]
            for line in table.splitlines()
            if line.startswith("|") and not set(line) <= set("|-: ")
        )
        for line in lines:
            own = rows[rows["fold"].isin(["all", ""]) & (rows["protocol"] != "random")]
            for name, cell in zip(header, line):
                if name in NAMES and cell:
                    own = own[own[NAMES[name]] == cell]
            for name, cell in zip(header, line):
                for number in [] if name in NAMES else NUMBER.findall(cell):
                    if not is_rounded(number, numbers(own, name)):
                        yield f"{path.name}: {number} ({line[0]}, {name}) is in no row of {file}"


def numbers(rows: pd.DataFrame, column: str) -> list[float]:
    """Return the numbers that a column's cell may show: counts, or AUROCs of a detector."""
    if column.startswith("n "):
        return rows[column.replace(" ", "_")].dropna().tolist()
    own = rows[(rows["method"] == column) & (rows["metric"] == "auroc")]
    means = own.groupby(["challenge", "level"])["value"].mean()
    return [*own[["value", "lo", "hi", *CHANCES]].to_numpy().ravel().tolist(), *means]


def is_rounded(shown: str, known: list[float]) -> bool:
    """Tell whether a number is the rounding of a known one, which has six decimals."""
    mantissa, _, exponent = shown.partition("e")
    half = 0.5 * 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return any(abs(float(shown) - value) <= half + 1e-6 for value in known)


def check_run(run: FinishedRun) -> Iterator[str]:
    """Yield what is wrong with a kept run."""
    try:
        for name in run.files:
            run.file(name)
        due = write_markdown(run.frame, run.about)
    except GradbenchError as fault:
        yield str(fault)
    else:
        yield from other_lines(run.path / "table.md", due, "what the rows give")


def check_table(path: Path, runs: list[FinishedRun]) -> Iterator[str]:
    """Yield what is wrong with a paper's table, written as CSV and Markdown."""
    filled = fill(read_table(path.stem), runs)
    for file, due in (
        (path, to_csv([filled])),
        (path.with_suffix(".md"), document.markdown(filled)),
    ):
        if file.is_file():
            yield from other_lines(file, due, "what the print and the runs give")


def other_lines(path: Path, due: str, source: str) -> Iterator[str]:
    """Yield that a file is not as it is due, with its first wrong line."""
    shown = path.read_text(encoding="utf-8")
    if shown != due:
        wrong = [line for line in shown.splitlines() if line not in set(due.splitlines())]
        yield f"{path}: not {source}: {(wrong or ['lines are missing'])[0]}"


def check_weights(folder: Path) -> Iterator[str]:
    """Yield what is wrong with weights and their checksums."""
    there = {path.name: file_digest(path) for path in folder.glob("*.safetensors")}
    sums = folder / "SHA256SUMS"
    lines = sums.read_text().splitlines() if sums.is_file() else []
    listed = {name.strip(" *"): digest for digest, _, name in (x.partition(" ") for x in lines)}
    for name in sorted(there.keys() | listed.keys()):
        if name not in listed:
            yield f"{name}: not listed in {sums.name}"
        elif name not in there:
            yield f"{name}: listed in {sums.name} and not there"
        elif there[name] != listed[name]:
            yield f"{name}: its SHA-256 is not the one listed in {sums.name}"


def main(root: Path) -> int:
    """Check a checkout, print what is wrong, and return the exit status."""
    faults = []
    with contextlib.chdir(root):  # tables name runs by their paths from here
        if Path("README.md").is_file():
            faults += check_readme(Path("README.md"))
        results = Path("results")
        try:
            runs = find_runs([results])
        except GradbenchError as fault:
            faults, runs = [*faults, str(fault)], []
        for run in runs:
            faults += check_run(run)
        whole = {run.path for run in runs}
        faults += [
            f"{path}: its run has no rows or is not whole"
            for path in sorted(results.glob("*/run.json"))
            if path.parent not in whole
        ]
        tables = sorted(results.glob("tables/*.csv"))
        for path in tables:
            faults += check_table(path, runs)
        faults += check_weights(results / "weights")
    print(*faults, sep="\n", end="\n" * bool(faults), file=sys.stderr)
    print(f"README, {len(runs)} runs, {len(tables)} papers' tables, weights: {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parents[1]))
