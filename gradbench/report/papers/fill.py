"""A paper's table filled from finished runs: printed numbers merged with measured rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas
from msgspec.structs import asdict
from pandas import DataFrame

from gradbench.config import group_files
from gradbench.report.finished_run import SOURCES, FinishedRun, begin_time
from gradbench.report.numbers import EXACT
from gradbench.report.papers.table import OURS, PaperTable
from gradbench.report.published import NAMING
from gradbench.run.rows import DEVIATION, DIGITS, INDICATIVE, WHOLE, is_mean
from gradbench.support.text import for_spreadsheet

NOT_BUILT = "method not built"
NOT_RUN = "not run"
NO_DETECTOR = "run without the detector"
NOT_MEASURED = "not measured: "

OUR_ROW = (
    *("in_dist", "backbone", "width", "challenge", "level", "method", "protocol"),
    *("metric", "side", "threshold_rule"),
)
COLUMNS = (
    *NAMING,
    *("unit", "published", "network", "line", "measured", "lo", "hi", "interval", "networks"),
    *("difference", "run", *(f"our_{name}" for name in OUR_ROW)),
    *("supervision", "clean_seen", "n_normal", "n_abnormal", "stand_in", "best", "near_best"),
    *("marks", "reason"),
)
"""Columns of the tidy table. Measured values, bounds and differences are in percent, whatever the
unit of the print; `network` names a backbone and its width, `networks` says how many of it, one
for each seed; `interval` is `resampled` (or empty without bounds), `exact` for a one-sided lower
bound, `range` for the smallest and largest of several networks; `stand_in` is `yes` for images
that stand in for the printed ones."""
REAL = ("measured", "lo", "hi", "difference")
MARKS = " | "
"""Between the remarks of one number in the column `marks`."""


@dataclass(frozen=True)
class FilledTable:
    """A table with its numbers.

    Attributes:
        cells: the tidy table, `COLUMNS`: one row per printed number, network and line of its
            metric; one with a `reason` for a network that has other numbers of the group, and
            where no network has any. Indexed by the row of `table.printed`.
        runs: those that gave a number, in the order of the cells.
        left_out: sentences on runs that could have, and why they did not.
    """

    table: PaperTable
    cells: DataFrame
    runs: list[FinishedRun]
    left_out: list[str]

    @property
    def measured(self) -> DataFrame:
        """The rows of `cells` that hold a measured number."""
        return self.cells[self.cells["measured"].notna()]

    @property
    def networks(self) -> list[str]:
        """The networks that have numbers, in the order of the table."""
        return list(dict.fromkeys(self.measured["network"]))

    @property
    def tally(self) -> str:
        """How many numbers are measured, how many of these only by a stand-in, and how many not."""
        total, measured = len(self.table.printed), self.measured
        count = measured.index.nunique()
        only = measured["stand_in"].eq("yes").groupby(level=0).all().sum()
        holes = f"{total - count} hole{'s' * (total - count != 1)}"
        return f"{count} of {total} cells measured, {only} by stand-in, {holes}"


def fill(table: PaperTable, runs: Sequence[FinishedRun], dirs: Iterable[Path] = ()) -> FilledTable:
    """Fill a table from finished runs, the newest first; what is not measured has the reason.

    Every network has numbers of its own. Those that are compared with each other are measured in
    the same place: the preferred one at which the network has any of them. Of a place's runs the
    first in the table's order of experiments that has a number gives it. `dirs` are folders of the
    user's own configuration files.
    """
    dirs = tuple(dirs)
    names = [run.network(dirs) for run in runs]
    matches = _matches(table, runs)
    chosen, left_out = _choose(table, matches, runs, dirs)
    matches["order"] = matches["run"].map({run: order for order, run in enumerate(chosen)})
    matches = matches.dropna(subset="order")
    matches["group"] = table.printed["group"].reindex(matches["cell"]).to_numpy()
    matches["network"] = [names[i] for i in matches["run"]]
    places = matches.groupby(["group", "network"], as_index=False)["place"].min()
    matches = matches.merge(places, on=["group", "network", "place"])
    matches = matches.sort_values(["cell", "experiment_order", "order"], kind="stable")
    first = matches.groupby(["cell", "network"])["run"].transform("first")
    matches = matches[matches["run"] == first]
    ranks = {name: rank for rank, name in enumerate(dict.fromkeys(names[i] for i in chosen))}
    places = places.sort_values("network", key=lambda column: column.map(ranks), kind="stable")
    due = table.printed[["group"]].rename_axis("cell").reset_index()
    due = due.merge(places, how="left")
    due["network"] = due["network"].astype(object).fillna("")
    cells = _cells(table, matches, due, runs, dirs)
    by_network = {"": [runs[i] for i in chosen]}
    for i in chosen:
        by_network.setdefault(names[i], []).append(runs[i])
    empty = cells["measured"].isna()
    cells.loc[empty, "reason"] = [
        _reason(table, cell, place, by_network[network], dirs)
        for cell, network, place in cells.loc[empty, ["network", "place"]].itertuples()
    ]
    cells = cells[list(COLUMNS)]
    _mark_best(table, cells)
    used = [runs[i] for i in dict.fromkeys(matches["run"])]
    _mark_near_best(table, cells, used)
    return FilledTable(table, cells, used, left_out)


def to_csv(filled: Iterable[FilledTable]) -> str:
    """Return tidy tables as CSV with LF line ends; equal tables give equal bytes."""
    cells = pandas.concat([one.cells for one in filled])
    for name in REAL:
        cells[name] = [repr(v) if v == v else "" for v in cells[name].tolist()]
    cells = cells.astype(object).where(cells.notna(), "").astype(str).map(for_spreadsheet)
    return cells[list(COLUMNS)].to_csv(index=False, lineterminator="\n")


def in_points(value: float, unit: str) -> float:
    """Return a printed value in percent."""
    return 100 * value if unit == "fraction" else value


def is_wanted(run: FinishedRun, table: PaperTable) -> bool:
    """Tell whether a run is one of those that a table asks for."""
    asked = table.places[["experiment", "in_dist", "backbone"]]
    fits = asked.eq([run.name, run.in_dist, run.backbone]).all(axis=1).any()
    return bool(fits) and run.protocol in table.protocols


def _matches(table: PaperTable, runs: Sequence[FinishedRun]) -> DataFrame:
    """Return the rows of runs that fit a printed number: `cell`, `place`, `line`, `run` and all."""
    places = table.places.rename(columns={"note": "place_note"})
    places["experiment_order"] = places.groupby(["cell", "place"]).cumcount()
    places["printed_metric"] = table.printed["metric"].reindex(places["cell"]).to_numpy()
    measures = [
        {"printed_metric": name, "line": line, **asdict(measure)}
        for name, metric in table.metrics.items()
        for line, measure in metric.measures.items()
    ]
    wanted = places.merge(DataFrame(measures))
    rows = [
        run.main_rows[run.main_rows["protocol"] == run.protocol].assign(run=i)
        for i, run in enumerate(runs)
        if is_wanted(run, table)
    ]
    if not rows:
        return wanted.iloc[:0].assign(run=0)
    measured = pandas.concat(rows).dropna(subset="value")
    names = [*OURS, "level", "metric", "side", "threshold_rule"]
    over_networks = measured["metric"].str.endswith(DEVIATION)
    matches = wanted.merge(measured[measured["fold"].eq("all") | over_networks], on=names)
    return matches.sort_values(["cell", "place"], kind="stable")


def _choose(
    table: PaperTable, matches: DataFrame, runs: Sequence[FinishedRun], dirs: tuple[Path, ...]
) -> tuple[list[int], list[str]]:
    """Return the runs that a table is made from, by their place in `runs`, and what was left out.

    Networks stand in the order of the table's backbones, the published size of each before a
    narrower one. Of a network no two trainings, parts or protocols are mixed: for each
    in-distribution set one run leads, and only those with its weights, images and protocol fill
    what it lacks. Protocols and experiments go by the table's preference, then the run that fills
    most cells wins, of several the newest. A run without a number of the table leads only where no
    run of its network has one.
    """
    chosen, left_out = [], []
    counts = matches.drop_duplicates(["run", "cell", "place"])["run"].value_counts()
    sizes = {
        i: (bool(run.narrower(dirs)), run.network(dirs))
        for i, run in enumerate(runs)
        if is_wanted(run, table)
    }
    for (in_dist, backbone), own in table.places.groupby(["in_dist", "backbone"], sort=False):
        experiments = list(dict.fromkeys(own["experiment"]))
        ranks = {
            i: (
                counts.get(i, 0) == 0,
                table.protocols.index(runs[i].protocol),
                experiments.index(runs[i].name),
                -counts.get(i, 0),
                -begin_time(runs[i].begun),
            )
            for i in sizes
            if (runs[i].in_dist, runs[i].backbone) == (in_dist, backbone)
        }
        for network in sorted({sizes[i] for i in ranks}):
            of_network = [i for i in ranks if sizes[i] == network]
            lead, *others = sorted(of_network, key=ranks.get)
            same = [i for i in others if runs[i].comparable == runs[lead].comparable]
            chosen += [lead, *same]
            if rest := [str(runs[i].path) for i in others if i not in same]:
                left_out.append(
                    "Left aside, for another training, part of the images or protocol than in "
                    f"{runs[lead].path}: {', '.join(rest)}."
                )
    return chosen, left_out


def _cells(
    table: PaperTable,
    matches: DataFrame,
    due: DataFrame,
    runs: Sequence[FinishedRun],
    dirs: tuple[Path, ...],
) -> DataFrame:
    """Return the tidy table without best numbers and reasons, with a column `place`.

    `due` names the numbers to be had: the `cell`, the `network`, "" for none, and its `place`.
    """
    sizes = {i: runs[i].narrower(dirs) for i in matches["run"].unique()}
    lines = []
    for (cell, network, line), rows in matches.groupby(["cell", "network", "line"], sort=False):
        first, values = rows.iloc[0], rows["value"]
        lo, hi, interval = first["lo"], first["hi"], "resampled"
        if len(rows) > 1:
            lo, hi, interval = values.min(), values.max(), "range"
        elif EXACT in first["note"] and hi == 100 and not np.isnan(lo):
            interval = "exact"
        printed = table.printed.loc[cell]
        fair = table.metrics[printed["metric"]].comparable
        fair = fair and printed["unit"] in ("percent", "fraction")
        run = runs[first["run"]]
        lines.append({
            "cell": cell, "network": network, "line": line,
            "measured": values.mean(), "lo": lo, "hi": hi,
            "interval": "" if np.isnan(lo) else interval, "networks": str(len(rows)),
            "difference": values.mean() - in_points(float(printed["value"]), printed["unit"])
            if fair else np.nan,
            "run": run.path.as_posix(),
            **{f"our_{n}": str(first[n]) if pandas.notna(first[n]) else "" for n in OUR_ROW},
            **{n: first[n] for n in ("supervision", "clean_seen")},
            **{n: str(first[n]) for n in WHOLE if n.startswith("n_")},
            "stand_in": "yes" if _stands_in(first) else "",
            "marks": MARKS.join(_marks(run, sizes[first["run"]], first)),
        })  # fmt: skip
    printed = table.printed.rename(columns={"value": "published"})
    measured = DataFrame(lines, columns=["cell", *(c for c in COLUMNS if c not in printed)])
    cells = due.merge(measured, on=["cell", "network"], how="left").set_index("cell")
    cells = printed.drop(columns="group").join(cells)
    cells[["best", "near_best", "reason"]] = ""
    cells = cells[[*COLUMNS, "place"]].astype(dict.fromkeys(REAL, float))
    cells[list(REAL)] = cells[list(REAL)].round(DIGITS) + 0.0  # the zero turns -0.0 into 0.0
    texts = [name for name in COLUMNS if name not in REAL]
    return cells.fillna(dict.fromkeys(texts, ""))


def _stands_in(row: pandas.Series) -> bool:
    return row["preferred"] not in ("", row["challenge"])


def _marks(run: FinishedRun, sizes: str, row: pandas.Series) -> list[str]:
    """Return what the reader must know of a measured number besides its value."""
    notes = [f"{run.backbone} of {sizes}"] if sizes else []
    notes += [*run.detector_notes(row["method"]), *run.image_notes()]
    own = (EXACT, NOT_MEASURED, "no interval", "indicative")
    source = [SOURCES[row["source"]]] if row["source"] in SOURCES else []
    source += [text for text in row["note"].split("; ") if text and not text.startswith(own)]
    stands_in = _stands_in(row)
    adversarial = row["challenge_set"] == "adversarial"  # everybody makes these images anew
    if is_mean(row["challenge"]):
        if pandas.notna(row["n_listed"]):  # of a deviation the mean beside it says all
            source.append(f"{row['n_at_hand']:,} of {row['n_listed']:,} listed images at hand")
            notes.append(f"{row['challenge_set']}, {'; '.join(source)}")
    elif row["place_note"]:
        notes.append(row["place_note"])
    elif row["source"] == "generated":
        if stands_in or not adversarial:  # one note for all families and levels
            notes.append(f"images {SOURCES['generated']}")
    elif stands_in:
        text = f"{row['challenge']} in place of {row['preferred']}: {'; '.join(source)}"
        notes.append(text.rstrip(": "))
    elif row["source"] in SOURCES:
        notes.append(f"{row['challenge']}: {'; '.join(source)}")
    return [*notes, INDICATIVE] if INDICATIVE in row["note"] else notes


def _reason(
    table: PaperTable,
    cell: int,
    place: float,
    chosen: Sequence[FinishedRun],
    dirs: tuple[Path, ...],
) -> str:
    """Return why a number is not measured.

    `place` is where others of its group are measured with the network of the runs `chosen`, NaN
    where none is with any network.
    """
    printed = table.printed.loc[cell]
    if printed["hole"]:
        return printed["hole"]
    detector = printed["detector"]
    if detector not in group_files("detector", dirs):
        return f"{NOT_BUILT}: {printed['method']}"
    places = table.places[table.places["cell"] == cell]
    if np.isnan(place):
        at = places
    else:
        of_network = places["backbone"].isin({run.backbone for run in chosen})
        at = places[of_network & (places["place"] == place)]
    for one in at.itertuples():
        for run in chosen:
            if (run.in_dist, run.backbone, run.name) == (one.in_dist, one.backbone, one.experiment):
                rows = run.main_rows
                rows = rows[rows["challenge"].eq(one.challenge) & rows["value"].isna()]
                rows = rows[rows["level"].isin([one.level, "0"]) & rows["fold"].eq("")
                            & rows["method"].isin([detector, ""])]  # fmt: skip
                if len(notes := rows["note"][rows["note"].str.contains(NOT_MEASURED)]):
                    return notes.iloc[0]
    if not np.isnan(place):
        one = at.iloc[0]
        return f"{NO_DETECTOR}: {detector} on {one['in_dist']} with {one['backbone']}"
    built = at[at["experiment"].isin(list(group_files("experiment", dirs)))]
    if built.empty:
        names = at["experiment"][at["place"] == at["place"].min()]
        return f"experiment not built: {' or '.join(names)}"
    there = built.drop_duplicates("in_dist")["experiment"]
    why = f" ({hole})" if (hole := next(filter(None, built["hole"]), "")) else ""
    return f"{NOT_RUN}: {' or '.join(there)} with {' or '.join(built['backbone'].unique())}{why}"


def _mark_best(table: PaperTable, cells: DataFrame) -> None:
    """Name the best of every group in the column `best`, where there is something to choose."""
    group = table.printed["group"].reindex(cells.index)
    sign = table.printed["higher_is_better"].map({"1": 1, "0": -1}).reindex(cells.index)
    for name, value, line in (
        ("published", cells["published"].astype(float), []),
        ("measured", cells["measured"].round(DIGITS), [cells["network"], cells["line"]]),
    ):
        groups = (sign * value).groupby([group.to_numpy(), *line])
        best = (sign * value).eq(groups.transform("max"))
        best &= groups.transform("max") > groups.transform("min")
        best &= cells["metric"].map(lambda metric: table.metrics[metric].compared)
        words = cells["line"].where(cells["measured"].notna()) if name == "measured" else name
        cells.loc[best, "best"] = (cells["best"] + " " + words)[best].str.strip()


def _mark_near_best(table: PaperTable, cells: DataFrame, runs: Iterable[FinishedRun]) -> None:
    """Mark the AUROCs that the paired test of their run does not tell from the best one.

    Read from the rows of `auroc_difference`, which name the best detector of the run; where the
    table does not hold that one, there is no test.
    """
    tested = set()
    for run in runs:
        rows = run.main_rows
        rows = rows[(rows["metric"] == "auroc_difference") & (rows["fold"] == "all")]
        rows = rows[(rows["lo"] <= 0) & (rows["hi"] >= 0)]
        names = rows[["challenge", "level", "method", "compared_with"]].itertuples(index=False)
        tested |= {(run.path.as_posix(), *name) for name in names}
    comparable = [name for name, one in table.metrics.items() if one.comparable]
    group = table.printed["group"].reindex(cells.index).to_numpy()
    auroc = cells.assign(row=range(len(cells)), group=group)
    auroc = auroc[auroc["metric"].isin(comparable) & auroc["our_metric"].eq("auroc")]
    near = np.zeros(len(cells), bool)
    for _, own in auroc.groupby(["group", "network"]):
        is_best = own["best"].str.contains("measured")
        for best in own[is_best].itertuples():
            place = (best.run, best.our_challenge, best.our_level)
            near[[
                one.row
                for one in own[~is_best].itertuples()
                if (*place, one.our_method, best.our_method) in tested and one.run == best.run
            ]] = True  # fmt: skip
    cells.loc[near, "near_best"] = "yes"
