"""Fills the tables of results/FINDINGS.md from the rows of the runs that it speaks of.

A table stands between `<!-- findings: NAME -->` and `<!-- /findings -->`; everything else is
written by hand. `--check` writes nothing: it exits with 1 where a table is not what the rows give,
or where a number with a decimal in the text stands in none of the tables above or below it.

    python scripts/findings.py [--check]
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pandas as pd

from gradbench.run.rows import NETWORKS, NO_LEVEL, is_mean, read_csv, rows_file

BLOCK = re.compile(r"(<!-- findings: (\S+) -->\n)(.*?)(<!-- /findings -->)", re.DOTALL)
DECIMAL = re.compile(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)")
OURS = ("gradient_fused", "gradient_fused_knn", "gradient_oneclass")
PAIRS = (
    *((ours, other) for ours in OURS for other in ("knn", "vim", "rmds", "energy")),
    *((f"activation_{kind}", f"gradient_{kind}") for kind in ("fused", "oneclass")),
    ("activation_fused", "vim"),
)
"""Those of the hypotheses, and the controls that take no gradient."""
STRONG = ("knn", "vim", "rmds", "energy")
HYPOTHESES = (
    *(("H1", "ood_cifar10_far", "gradient_fused", other) for other in STRONG),
    *(("H1", "ood_gtsrb", "gradient_fused", other) for other in STRONG),
    ("H2", "ood_cifar10_far", "gradient_oneclass", "energy"),
    ("H2", "ood_gtsrb", "gradient_oneclass", "energy"),
    ("H3", "ood_cifar10_near", "gradient_oneclass", "energy"),
    *(("H4", "ood_cifar10_fresh", "gradient_fused", other) for other in STRONG),
    ("H5", "corruption_cifar10", "gradient_fused", "energy"),
    *(("H7", name, "gradient_synthetic", "msp")
      for name in ("ood_cifar10_far", "ood_cifar10_near", "ood_gtsrb")),
    ("H8", "ood_cifar10_far", "gradient_uncertainty", "msp"),
)  # fmt: skip
"""Hypothesis of PLAN.md, run in folds (without: RUN_unsupervised), and the pair it is about."""


def main(root: Path, check: bool) -> int:
    """Fill or check the tables, and return the exit status."""
    path = root / "results" / "FINDINGS.md"
    text = path.read_text(encoding="utf-8")

    def fill(block: re.Match) -> str:
        kind, _, name = block[2].partition(":")
        return block[1] + "\n".join(TABLES[kind](root / "results", name)) + "\n" + block[4]

    filled = BLOCK.sub(fill, text)
    if not check:
        path.write_text(filled, encoding="utf-8")
        return 0
    faults = [] if filled == text else ["results/FINDINGS.md: a table is not what the rows give"]
    known = set(DECIMAL.findall("".join(block[3] for block in BLOCK.finditer(filled))))
    prose = BLOCK.sub("", filled)
    faults += [f"results/FINDINGS.md: {n} stands in none of its tables"
               for n in dict.fromkeys(DECIMAL.findall(prose)) if n not in known]  # fmt: skip
    print("\n".join(faults) or "results/FINDINGS.md: its tables and numbers are those of the rows",
          file=sys.stderr if faults else sys.stdout)  # fmt: skip
    return bool(faults)


def means(results: Path, name: str) -> list[str]:
    """Return the mean AUROC of every detector over the challenges of a run, highest first."""
    rows = _auroc(_rows(results / name))
    line = rows[rows["challenge"].map(is_mean)]
    seeds = sorted(line["train_seed"].dropna().unique())
    head = ["detector", "mean", "interval over images", *(f"network {s}" for s in seeds)]
    found = []
    for method, own in line.groupby("method", sort=False):
        several = own[own["fold"] == NETWORKS] if len(seeds) > 1 else own
        if len(several) != 1:
            continue
        whole = several.iloc[0]
        each = [_one(own[(own["train_seed"] == s) & (own["fold"] == "all")]) for s in seeds]
        interval = "" if pd.isna(whole["lo"]) else f"{whole['lo']:.1f} to {whole['hi']:.1f}"
        found.append((whole["value"], [f"`{method}`", f"{whole['value']:.1f}", interval, *each]))
    return _table(head, [cells for _, cells in sorted(found, key=lambda one: -one[0])])


def overview(results: Path, names: str) -> list[str]:
    """Return the mean AUROC of every detector in several runs, the best of each in bold.

    Args:
        results: where the folders of the runs lie.
        names: `title=folder`, joined by commas.
    """
    columns = dict(one.split("=") for one in names.split(","))
    wide = pd.DataFrame({title: _means(results, name) for title, name in columns.items()})
    best = wide.round(1).max()
    order = wide.mean(axis=1, skipna=False).sort_values(ascending=False).index
    return _table(["detector", *columns], [
        [f"`{method}`", *(_bold(wide.loc[method, title], best[title]) for title in columns)]
        for method in order
    ])  # fmt: skip


def _means(results: Path, name: str) -> pd.Series:
    """Return the mean AUROC of every detector of a run, over its networks."""
    rows = _auroc(_rows(results / name))
    line = rows[rows["challenge"].map(is_mean)]
    whole = line[line["fold"] == (NETWORKS if line["train_seed"].nunique() > 1 else "all")]
    return whole.set_index("method")["value"]


def _bold(value: float, best: float) -> str:
    """Return a number for a table, bold where it is the best shown."""
    if pd.isna(value):
        return ""
    shown = f"{value:.1f}"
    return f"**{shown}**" if round(value, 1) == best else shown


def cells(results: Path, name: str) -> list[str]:
    """Return the AUROC of every detector on every challenge of a run, mean over its networks."""
    rows = _auroc(_rows(results / name))
    rows = rows[(rows["fold"] == "all") & (rows["protocol"] != "random")]
    rows = rows[rows["challenge_set"].isin(["ood", "corruption", "adversarial"])]
    wide = rows.pivot_table("value", "method", ["challenge", "level"], "mean", sort=False)
    head = ["detector", *(" ".join(w for w in c if w != NO_LEVEL) for c in wide.columns)]
    return _table(
        head, [[f"`{method}`", *(f"{v:.1f}" for v in line)] for method, line in wide.iterrows()]
    )


def pairs(results: Path, name: str) -> list[str]:
    """Return the gaps that the hypotheses speak of and those to the controls.

    The interval is at the level at which Holm's procedure over all pairs of the mean decided.
    """
    rows = _rows(results / name)
    rows = rows[rows["metric"] == "auroc_gap"]
    found = []
    for ours, other in PAIRS:
        own = rows[(rows["method"] == ours) & (rows["compared_with"] == other)]
        for row in own.itertuples():
            found.append([f"`{ours}` minus `{other}`", f"{row.value:+.1f}",
                          f"{row.lo:+.1f} to {row.hi:+.1f}", _p(row.p_holm)])  # fmt: skip
    return _table(["pair", "points", "interval after Holm", "p after Holm"], found)


def hypotheses(results: Path, _name: str) -> list[str]:
    """Return the gaps of the hypotheses, without folds and in folds, see `HYPOTHESES`."""
    found = []
    for hypothesis, run, ours, other in HYPOTHESES:
        whole = _gap(results, f"{run}_unsupervised", ours, other)
        folds = _gap(results, run, ours, other)
        found.append([f"{hypothesis}, `{run}`", f"`{ours}` minus `{other}`",
                      f"{whole.value:+.1f}", f"{whole.lo:+.1f} to {whole.hi:+.1f}",
                      _p(whole.p_holm), _p(folds.p_holm), _p(folds.p_folds)])  # fmt: skip
    head = ["hypothesis and run", "pair", "points", "interval", "p", "p, run in folds", "t-test"]
    return _table(head, found)


def _gap(results: Path, name: str, ours: str, other: str):
    """Return the row of a gap on means, turned round where it stands the other way."""
    rows = _rows(results / name)
    rows = rows[rows["metric"] == "auroc_gap"]
    for a, b, sign in ((ours, other, 1), (other, ours, -1)):
        own = rows[(rows["method"] == a) & (rows["compared_with"] == b)]
        if len(own):
            row = own.iloc[0].copy()
            row["lo"], row["value"], row["hi"] = sorted(
                sign * row[name] for name in ("lo", "value", "hi")
            )
            return row
    raise SystemExit(f"{name} does not compare {ours} with {other}")


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def transfer(results: Path, name: str) -> list[str]:
    """Return the AUROC of supervised detectors on the challenge they saw and on the others."""
    rows = _auroc(_rows(results / name))
    rows = rows[rows["method"].str.contains("@") & (rows["fold"] == "all")]
    rows = rows[~rows["challenge"].map(is_mean) & ~rows["challenge_set"].isin(["control", "clean"])]
    rows = rows.assign(place=_titles(rows))
    head = ["fitted on", "on it", "mean of the others", "fitted on them", "loss", "lowest of them"]
    each = rows.groupby(["method", "place"], sort=False)["value"].mean()
    found = []
    for method in dict.fromkeys(rows["method"]):
        detector, _, seen = method.partition("@")
        others = each[method].drop(seen)
        theirs = each.reindex([(f"{detector}@{place}", place) for place in others.index]).mean()
        found.append([f"`{method}`", f"{each[method, seen]:.1f}", f"{others.mean():.1f}",
                      f"{theirs:.1f}", f"{theirs - others.mean():.1f}",
                      f"{others.min():.1f} ({others.idxmin()})"])  # fmt: skip
    return _table(head, found)


def roundtrips(results: Path, name: str) -> list[str]:
    """Return how far detectors on gradients lie above the round trip of each set, where ahead.

    A detector is ahead where none of its supervision (fitted on the challenge, or not) is better.
    """
    rows = _auroc(_rows(results / name))
    rows = rows[(rows["fold"] == "all") & (rows["protocol"] != "random")]
    each = rows.groupby(["supervision", "challenge", "method"])["value"].mean()
    trips = sorted(c for c in rows["challenge"].unique() if c.startswith("round_trip:"))
    found = []
    for trip in trips:
        place = trip.partition(":")[2]
        for supervision in ("none", "training"):
            if (supervision, place) not in each.index.droplevel(2):
                continue
            values = each[supervision, place]
            method = values.idxmax()
            if not method.startswith("gradient"):
                continue
            gap = values[method] - each[supervision, trip, method]
            what = "no" if supervision == "none" else "yes"
            found.append([place, what, f"`{method}`", f"{values[method]:.1f}",
                          f"{values[method] - gap:.1f}", f"{gap:.1f}"])  # fmt: skip
    head = ["set", "challenge seen", "first is", "on the set", "round trip", "above it"]
    return _table(head, found)


def unseen(results: Path, name: str) -> list[str]:
    """Return what every detector of a transfer has on the challenge it saw, and on all others."""
    rows = _auroc(_rows(results / name))
    rows = rows[(rows["fold"] == "all") & ~rows["challenge"].map(is_mean)]
    rows = rows[~rows["challenge_set"].isin(["control", "clean"])]
    place = _titles(rows)
    parts = rows["method"].str.partition("@")
    own = (parts[2] == place) & (parts[1] == "@")
    values = rows.assign(detector=parts[0], kind=own.map({True: "own", False: "other"}))
    wide = values.pivot_table("value", ["detector", "train_seed"], "kind", "mean")
    found = []
    for detector, lines in wide.groupby("detector"):
        others, losses = lines["other"].mean(), lines["own"] - lines["other"]
        fitted = losses.notna().all()
        spread = f"{losses.min():.1f} to {losses.max():.1f}" if fitted else ""
        mean = f"{lines['own'].mean():.1f}" if fitted else ""
        loss = f"{losses.mean():.1f}" if fitted else ""
        found.append((others, [f"`{detector}`", mean, f"{others:.1f}", loss, spread]))
    head = ["detector", "on what it saw", "on what it did not", "loss", "of the networks"]
    return _table(head, [line for _, line in sorted(found, key=lambda one: -one[0])])


def unrelated(results: Path, name: str) -> list[str]:
    """Return the mean AUROC over the challenges that are no relatives of `gradient_synthetic`'s."""
    rows = _auroc(_rows(results / name))
    rows = rows[(rows["fold"] == "all") & ~rows["challenge"].map(is_mean)]
    rows = rows[rows["challenge_set"].isin(["ood", "corruption", "adversarial"])]
    rows = rows[rows["protocol"] != "random"]
    notes = rows["note"].str.contains("gradient_synthetic: fitted on")
    related = set(rows[notes]["challenge"])
    rows = rows[~rows["challenge"].isin(related)]
    means = rows.groupby(["method", "train_seed"])["value"].mean().unstack()
    head = ["detector", "mean", *(f"network {seed}" for seed in means.columns)]
    means.insert(0, "mean", means.mean(axis=1))
    return _table(head, [
        [f"`{method}`", *(f"{value:.1f}" for value in line)]
        for method, line in means.sort_values("mean", ascending=False).iterrows()
        if method in ("gradient_synthetic", "gradient_fused", "energy", "msp")
    ])  # fmt: skip


def costs(results: Path, name: str) -> list[str]:
    """Return passes, images per second and memory of every detector of a run, quickest first."""
    rows = _costs_md(results / name / "costs.md")
    rows = [row for row in rows if row["with passes, images/s"]]
    each = {row["detector"]: float(row["with passes, images/s"].replace(",", "")) for row in rows}
    found = [
        [f"`{row['detector']}`", row["forward"], row["backward"], row["with passes, images/s"],
         f"{each['msp'] / each[row['detector']]:.1f}", row["peak memory, MiB"]]
        for row in sorted(rows, key=lambda row: -each[row["detector"]])
    ]  # fmt: skip
    head = ["detector", "forward", "backward", "images/s", "time, `msp` = 1", "peak memory, MiB"]
    return _table(head, found)


def _costs_md(path: Path) -> list[dict[str, str]]:
    """Return the lines of the table of a costs.md, by column."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return [dict(zip(header, row)) for row in rows]


def layers(results: Path, name: str) -> list[str]:
    """Return the AUROC of the one-class detector on each part of the network, by challenge."""
    rows = pd.read_csv(results / f"{name}.csv", keep_default_na=False)
    rows["auroc_without"] = pd.to_numeric(rows["auroc_without"])
    challenges = list(dict.fromkeys(rows["challenge"]))
    found = []
    for part, own in rows.groupby("part", sort=False):
        each = own.groupby("challenge")["auroc"].mean()
        without = "" if part == "all" else f"{own['auroc_without'].mean():.1f}"
        found.append([part, *(f"{each[c]:.1f}" for c in challenges), f"{each.mean():.1f}", without])
    return _table(["gradients of", *challenges, "mean", "mean of all others"], found)


def fusions(results: Path, name: str) -> list[str]:
    """Return the AUROC of energy joined with each distance, by challenge, best first."""
    rows = pd.read_csv(results / f"{name}.csv", keep_default_na=False)
    rows["auroc_alone"] = pd.to_numeric(rows["auroc_alone"])
    challenges = list(dict.fromkeys(rows["challenge"]))
    shown = challenges if len(challenges) <= 6 else []
    found = []
    for distance, own in rows.groupby("distance", sort=False):
        each = own.groupby("challenge")["auroc"].mean()
        joined = f"energy and `{distance}`" if distance else "energy"
        alone = f"{own['auroc_alone'].mean():.1f}" if distance else ""
        line = [joined, *(f"{each[c]:.1f}" for c in shown), f"{each.mean():.1f}", alone]
        found.append((each.mean(), line))
    head = ["score", *shown, "mean", "mean of the distance alone"]
    return _table(head, [line for _, line in sorted(found, key=lambda one: -one[0])])


def simulation(results: Path, name: str) -> list[str]:
    """Return what the comparison of detectors does where the truth is known, in percent."""
    rows = pd.read_csv(results / f"{name}.csv", dtype=str, keep_default_na=False)
    head = ["design", "AUROC", "images a side", "interval holds the difference", "of all fits",
            "two equal ones differ", "of 10", "of 20", "20 with one named before",
            "two, t-test over folds"]  # fmt: skip
    shown = [c for c in rows.columns if c not in ("repetitions", "replicates")]
    found = []
    for line in rows[shown].to_numpy():
        design, level, images, *shares = line
        shares = [f"{float(share):.1f}" if share else "" for share in shares]
        found.append([design, f"{float(level):.0f}", f"{int(images):,}", *shares])
    return _table(head, found)


TABLES: dict[str, Callable[[Path, str], list[str]]] = {
    "overview": overview,
    "means": means,
    "cells": cells,
    "pairs": pairs,
    "hypotheses": hypotheses,
    "transfer": transfer,
    "roundtrips": roundtrips,
    "unseen": unseen,
    "unrelated": unrelated,
    "costs": costs,
    "layers": layers,
    "fusions": fusions,
    "simulation": simulation,
}


@cache
def _rows(folder: Path) -> pd.DataFrame:
    """Return the rows of a run, read once."""
    return read_csv(rows_file(folder))


def _titles(rows: pd.DataFrame) -> pd.Series:
    """Return challenge and level of every row in words."""
    return (rows["challenge"] + " " + rows["level"].replace(NO_LEVEL, "")).str.strip()


def _auroc(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[(rows["metric"] == "auroc") & rows["value"].notna()]


def _one(rows: pd.DataFrame) -> str:
    return f"{rows['value'].iloc[0]:.1f}" if len(rows) == 1 else ""


def _table(head: list[str], lines: list[list[str]]) -> list[str]:
    every = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return [f"| {' | '.join(line)} |" for line in every]


if __name__ == "__main__":
    given = sys.argv[1:]
    if given not in ([], ["--check"]):
        sys.exit("usage: python scripts/findings.py [--check]")
    sys.exit(main(Path(__file__).resolve().parents[1], bool(given)))
