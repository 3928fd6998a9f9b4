"""Whether the numbers of written tables are those of the print and of the runs they name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas

from gradbench.errors import GradbenchError
from gradbench.report.papers.fill import COLUMNS, OUR_ROW, REAL, from_csv, in_points
from gradbench.report.papers.layout import Notes, panels
from gradbench.report.papers.runs import Run
from gradbench.report.papers.table import read_table
from gradbench.report.published import NAMING, published_files, read_published
from gradbench.report.table import markdown


def is_table(path: Path) -> bool:
    """Tell whether a file is a table that `gradbench tables format=csv` wrote."""
    with open(path, encoding="utf-8") as file:
        return file.readline().strip() == ",".join(COLUMNS)


def check(path: Path, root: Path) -> tuple[int, list[str]]:
    """Compare a tidy CSV with the published numbers and the rows of the runs that it names.

    A Markdown file of the same name beside it must hold the panels that the CSV gives.

    Args:
        path: of the CSV.
        root: folder from which the paths of the runs go.

    Returns:
        How many numbers were compared, and a sentence for each that is wrong.
    """
    cells = from_csv(path)
    printed = pandas.concat(map(read_published, published_files().values()))
    printed = printed[[*NAMING, "value"]]
    found = cells.merge(printed, how="left", on=list(NAMING))
    where = path.name + ", " + found["challenge"] + ", " + found["method"] + ", " + found["metric"]
    wrong = found["published"] != found["value"]
    faults = list((where + ": " + found["published"] + " was not published")[wrong])
    right = _from_runs(found, root)
    measured = found["run"] != ""
    for name in REAL:
        same = np.isclose(found[name], right[name], rtol=0, atol=2e-6, equal_nan=True)
        wrong = measured & ~same
        texts = where + f": {name} " + found[name].astype(str) + " is not in " + found["run"]
        faults += list(texts[wrong])
    count = len(found) + int(found.loc[measured, list(REAL)].notna().sum().sum())
    beside = path.with_suffix(".md")
    return count, faults + (_check_markdown(beside, cells) if beside.is_file() else [])


def _from_runs(cells: pandas.DataFrame, root: Path) -> pandas.DataFrame:
    """Return what the runs' rows say of each cell, NaN where they say nothing."""
    names = [f"our_{name}" for name in OUR_ROW]
    right = pandas.DataFrame(np.nan, index=cells.index, columns=list(REAL))
    for run, own in cells[cells["run"] != ""].groupby("run"):
        try:
            rows = Run(root / run).main_rows
        except GradbenchError:  # no such run: nothing of it can be right
            continue
        rows = rows[(rows["fold"] == "all") & rows["value"].notna()]
        rows = rows.assign(**{f"our_{n}": rows[n].astype(str).replace("<NA>", "") for n in OUR_ROW})
        for cell, one in rows.merge(own[names].reset_index(), on=names).groupby("index"):
            values = one["value"]
            lo, hi = one[["lo", "hi"]].iloc[0] if len(one) == 1 else (values.min(), values.max())
            right.loc[cell, ["measured", "lo", "hi"]] = values.mean(), lo, hi
    differs = cells["difference"].notna()
    published = [in_points(float(v), u) for v, u in zip(cells["published"], cells["unit"])]
    right["difference"] = (right["measured"] - published).where(differs)
    return right


def _check_markdown(path: Path, cells: pandas.DataFrame) -> list[str]:
    """Compare a Markdown file with the tables that its CSV gives, line by line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    due, shown = [], [line for line in lines if line.startswith("|")]
    for grids in panels(read_table(cells["table"].iloc[0]), cells, Notes()).values():
        due += [line for grid in grids for line in markdown(grid).splitlines()]
    if len(due) != len(shown):
        return [f"{path.name}: {len(shown)} lines of tables, and {len(due)} in its CSV"]
    wrong = [i for i in range(len(due)) if due[i] != shown[i]]
    return [f"{path.name}: '{shown[i]}' is not in {path.stem}.csv" for i in wrong]
