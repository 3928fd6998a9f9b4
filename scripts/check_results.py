"""Compares every number in the result tables of README.md and results/ with the rows beside it.

A table of README.md stands between `<!-- results: PATH/results.csv -->` and `<!-- /results -->`;
every `results/**/table.md` belongs to the `results.csv` in its folder. A cell's number must be
found, rounded as shown, among the rows of the challenge, level, split, detector and measure that
its row and column name. Weights must have the SHA-256 of `results/weights/SHA256SUMS`. The papers'
tables, CSV and Markdown of `gradbench tables out=DIR`, are compared with the published numbers and
with the rows of the runs that they name.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from gradbench.errors import GradbenchError
from gradbench.report.across import P_FOLDS
from gradbench.report.papers import check as papers
from gradbench.report.view import (
    ATTACKS,
    AUROC,
    COLUMNS,
    DIFFERENCE,
    RANGE,
    Line,
    Measure,
)
from gradbench.run.rows import CHANCES, NETWORKS, read_csv, rows_file

BLOCK = re.compile(r"<!-- results: (\S+) -->\n(.*?)<!-- /results -->", re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e-?\d+)?(?![\w.]*\w)")
WORDS = ("challenge", "control", "level", "split", "detector", "source", "passes of an image")
"""Headers of the columns that say what is measured."""
MEASURES = COLUMNS | ATTACKS | {P_FOLDS: DIFFERENCE}
SEVERAL = {"mean": AUROC, "interval over images": AUROC, "range over networks": RANGE}
"""Headers of the section on several networks."""


def main(root: Path) -> int:
    """Check a checkout, print what is wrong, and return the exit status."""
    faults, numbers, tables = [], 0, 0
    for place, text, rows in _texts(root, faults):
        for table in _tables(text):
            tables += 1
            for shown, found, where in _cells(table, rows):
                numbers += len(shown)
                missing = [number for number in shown if not _is_there(number, found)]
                faults += [f"{place}: {number} ({where}) is in no row" for number in missing]
    for path in sorted((root / "results").rglob("*.csv")):
        if papers.is_table(path):
            count, wrong = papers.check(path, root)
            tables, numbers, faults = tables + 1, numbers + count, faults + wrong
    weights = _check_weights(root / "results" / "weights", faults)
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{numbers} numbers in {tables} tables and {weights} weights: {len(faults)} faults")
    return 1 if faults else 0


def _texts(root: Path, faults: list[str]) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield the name, the text and the rows of everything that holds result tables."""
    wanted = []
    if (root / "README.md").is_file():
        text = (root / "README.md").read_text(encoding="utf-8")
        wanted += [("README.md", block[2], root / block[1]) for block in BLOCK.finditer(text)]
        if text.count("<!-- results:") != len(wanted):
            faults.append("README.md: a mark `<!-- results: … -->` has no `<!-- /results -->`")
    for path in sorted((root / "results").rglob("table.md")):
        name = path.relative_to(root).as_posix()
        wanted.append((name, path.read_text(encoding="utf-8"), rows_file(path.parent)))
    for name, text, csv in wanted:
        try:
            yield name, text, read_csv(csv)
        except GradbenchError as fault:
            faults.append(f"{name}: {fault}")


def _tables(text: str) -> Iterator[list[list[str]]]:
    """Yield the Markdown tables of a text as rows of cells, the header first."""
    for block in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        rows = [
            [
                cell.strip().replace("\\|", "|")
                for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]
            ]
            for line in block.splitlines()
        ]
        yield [row for row in rows if not all(set(cell) <= set("-: ") for cell in row)]


def _cells(
    table: Sequence[Sequence[str]], rows: pd.DataFrame
) -> Iterator[tuple[list[str], set[float], str]]:
    """Yield the numbers of each cell, those of the rows it speaks of, and its place in words."""
    header = table[0]
    methods = set(rows["method"]) - {""}
    every = list(rows.itertuples(index=False))
    of_challenge = defaultdict(list)
    for one in every:
        of_challenge[one.challenge].append(one)
    places = {line.title: line for line in map(Line.of, every)}
    for line in table[1:]:
        of_line = {name: _plain(cell) for name, cell in zip(header, line) if name in WORDS}
        for column, cell in zip(header, line):
            shown = NUMBER.findall(cell)
            if column in WORDS or not shown:
                continue
            wanted = dict(of_line)
            if "detector" in wanted:  # an attack's name is a challenge here, and a method in rows
                if column in places:
                    line_of = places[column]
                    wanted |= {"challenge": line_of.challenge, "level": line_of.level}
            elif column in methods:
                wanted["detector"] = column
            where = ", ".join([*(v for v in of_line.values() if v), column])
            challenge = wanted.get("challenge") or wanted.get("control")
            own = of_challenge.get(challenge, []) if challenge else every
            yield shown, _candidates(own, wanted, column), where


def _candidates(rows: Sequence, wanted: dict[str, str], column: str) -> set[float]:
    """Return the numbers that a cell may show, of the rows of its challenge."""
    folds = (NETWORKS,) if column in SEVERAL else ("all", "")
    split, level = wanted.get("split", ""), wanted.get("level")
    rows = [
        row for row in rows
        if row.fold in folds
        and (row.protocol == split if split else row.protocol != "random")
        and (level is None or Line.of(row).level == level)
    ]  # fmt: skip
    if column.startswith("n "):
        return {float(n) for row in rows if pd.notna(n := getattr(row, column.replace(" ", "_")))}
    method = wanted.get("detector")
    measure = MEASURES.get(column, AUROC if "detector" in wanted else None)
    measure = SEVERAL.get(column, measure)
    rows = [
        row for row in rows
        if (not method or row.method == method)
        and (not measure or Measure(row.metric, row.side, row.threshold_rule) == measure)
    ]  # fmt: skip
    found = {float(v) for row in rows for v in (row.value, row.lo, row.hi) if pd.notna(v)}
    networks = defaultdict(list)
    for row in rows:
        same = (row.challenge, row.level, row.method, row.protocol)
        networks[*same, row.metric, row.side, row.threshold_rule].append(row.value)
    found |= {sum(v) / len(v) for each in networks.values() if (v := [x for x in each if x == x])}
    chances = (getattr(row, name) for row in rows for name in CHANCES)
    return found | {float(p) for p in chances if pd.notna(p)}


def _is_there(shown: str, found: set[float]) -> bool:
    """Tell whether a number is the rounding of one of those found, which have six decimals."""
    mantissa, _, exponent = shown.partition("e")
    half = 0.5 * 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    stored = 1e-6 * half if exponent else 1e-6  # a mean of such values may lie on the border
    return any(abs(float(shown) - value) <= half + stored for value in found)


def _plain(cell: str) -> str:
    return cell.replace("*", "").strip("` ")


def _check_weights(folder: Path, faults: list[str]) -> int:
    """Compare weights with their checksums, both ways, and return how many are listed."""
    there = {path.name for path in folder.glob("*.safetensors")}
    sums = folder / "SHA256SUMS"
    listed = {}
    for line in sums.read_text().splitlines() if sums.is_file() else []:
        digest, _, name = line.partition(" ")
        listed[name.strip(" *")] = digest
    faults += [f"{name}: not listed in {sums.name}" for name in sorted(there - listed.keys())]
    for name, digest in sorted(listed.items()):
        if not (folder / name).is_file():
            faults.append(f"{name}: listed in {sums.name} and not there")
        elif hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            faults.append(f"{name}: its SHA-256 is not the one listed in {sums.name}")
    return len(listed)


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parents[1]))
