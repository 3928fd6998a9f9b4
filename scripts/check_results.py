"""Compares every number in README.md and results/ with the rows that it comes from.

A table of README.md stands between `<!-- results: PATH/results.csv.gz -->` and `<!-- /results -->`:
each number must be the rounding of one in the rows of the challenge, level and detector that its
row and column name. A kept run's table.md must be what its rows give, its files those that its
run.json lists; the papers' tables those of the print and of the runs that they name; weights must
have the SHA-256 of `results/weights/SHA256SUMS`. `findings.py --check` compares FINDINGS.md.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from gradbench.errors import GradbenchError
from gradbench.report import finished_run
from gradbench.report.papers import check as papers
from gradbench.report.run_tables import write_markdown
from gradbench.run.rows import CHANCES, read_csv, rows_file
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
    found = own[["value", "lo", "hi", *CHANCES]].to_numpy().ravel().tolist()
    return [*found, *means]


def is_rounded(shown: str, known: list[float]) -> bool:
    """Tell whether a number is the rounding of a known one, which has six decimals."""
    mantissa, _, exponent = shown.partition("e")
    half = 0.5 * 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return any(abs(float(shown) - value) <= half + 1e-6 for value in known)


def check_run(folder: Path) -> Iterator[str]:
    """Yield what is wrong with a kept run."""
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    for name in run.get("files", {}):
        try:
            finished_run.check_file(folder, run["files"], name)
        except GradbenchError as fault:
            yield str(fault)
    due = write_markdown(read_csv(rows_file(folder)), run["about"]).splitlines()
    shown = (folder / "table.md").read_text(encoding="utf-8").splitlines()
    wrong = [line for line in shown if line not in set(due)]
    if wrong or len(due) != len(shown):
        yield f"{folder / 'table.md'}: not what the rows give: {(wrong or ['lines missing'])[0]}"


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
    results, faults = root / "results", []
    if (root / "README.md").is_file():
        faults += check_readme(root / "README.md")
    runs = sorted(path.parent for path in results.glob("*/run.json"))
    for folder in runs:
        faults += check_run(folder)
    tables = [path for path in sorted(results.rglob("*.csv")) if papers.is_table(path)]
    for path in tables:
        faults += papers.check(path, root)[1]
    faults += check_weights(results / "weights")
    print(*faults, sep="\n", end="\n" * bool(faults), file=sys.stderr)
    print(f"README, {len(runs)} runs, {len(tables)} papers' tables, weights: {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parents[1]))
