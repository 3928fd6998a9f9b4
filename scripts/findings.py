"""Writes the tables of results/appendix/ from the rows of the runs that results/FINDINGS.md cites.

findings.yaml lists them. `--check` writes nothing: it exits with 1 where an appendix is not what
the rows give, or where a number with a decimal in FINDINGS.md stands in no table of an appendix or
of results/tables/.

    python scripts/findings.py [--check]
"""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from gradbench.backbones.published import PUBLISHED, SETTING
from gradbench.config import group_files, load_member
from gradbench.run.rows import NETWORKS, NO_LEVEL, is_mean, rows_file

DECIMAL = re.compile(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)")
FACTS = Path(__file__).with_suffix(".yaml")
ROWS = (
    "from the rows of the runs; AUROC in percent. [FINDINGS.md](../FINDINGS.md) says what it means."
)
MEASURE = "'challenges=[]' 'detectors=[msp]' dataset.holdout=0 controls.memorisation=false"
"""A run that measures the accuracy on all test images."""
MEANS = {"mean:near": "near", "mean:far": "far"}
FEW = 8
"""Challenges that have columns of their own."""


class Tables:
    """The kinds of tables, each from the rows of one run; AUROC in percent.

    Args:
        results: the folder of the runs.
        facts: what findings.yaml says.
    """

    def __init__(self, results: Path, facts: dict[str, Any]):
        self.results, self.facts = results, facts
        self.rows = cache(lambda run: self._read(run))

    def _read(self, run: str) -> pd.DataFrame:
        rows = pd.read_csv(rows_file(self.results / run), dtype={"level": str}, low_memory=False)
        return rows.fillna(dict.fromkeys(rows.select_dtypes(exclude="number").columns, ""))

    def auroc(self, run: str, *roles: str) -> pd.DataFrame:
        """Return the AUROCs of a run, over all folds and networks, by role (default: main)."""
        rows = self.rows(run)
        rows = rows[(rows["metric"] == "auroc") & rows["value"].notna()]
        return rows[rows["role"].isin(roles or ("main",)) & rows["fold"].isin(["all", NETWORKS])]

    def each(self, run: str, *roles: str) -> pd.DataFrame:
        """Return the AUROCs of single networks, without means over challenges."""
        rows = self.auroc(run, *roles)
        rows = rows[(rows["fold"] == "all") & ~rows["challenge"].map(is_mean)]
        place = (rows["challenge"] + " " + rows["level"].replace(NO_LEVEL, "")).str.strip()
        return rows.assign(place=place)

    def of_means(self, run: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the AUROCs on the mean over challenges: of all networks together, and of each."""
        rows = self.auroc(run)
        rows = rows[rows["challenge"].map(is_mean)]
        single = rows[rows["fold"] == "all"].pivot(
            index="method", columns="train_seed", values="value"
        )
        whole = rows[rows["fold"] == (NETWORKS if len(single.columns) > 1 else "all")]
        return whole.set_index("method"), single

    def detectors(self, run: str) -> pd.DataFrame:
        """Return the mean AUROC of every detector, and that on each of a few challenges."""
        whole, single = self.of_means(run)
        order = whole["value"].sort_values(ascending=False).index
        interval = whole["lo"].map("{:.1f}".format) + " to " + whole["hi"].map("{:.1f}".format)
        interval = interval.where(whole["lo"].notna(), "")
        table = pd.DataFrame({"mean": whole["value"].map(one), "interval over images": interval})
        cells = self.each(run).pivot_table("value", "method", "place", "mean").map(one)
        # a published network has no seed
        single = single[single.columns.dropna()].map(one)
        single = single.rename(columns="network {:.0f}".format)
        return named(table.join(cells if len(cells.columns) <= FEW else cells.iloc[:, :0])
                     .join(single).loc[order])  # fmt: skip

    def benchmark(self, run: str) -> pd.DataFrame:
        """Return near and far means of every detector, with the deviation over networks."""
        rows = self.rows(run)
        rows = rows[
            (rows["role"] == "main") & rows["challenge"].isin(MEANS) & rows["value"].notna()
        ]
        whole = rows[rows["fold"] == NETWORKS] if (rows["fold"] == NETWORKS).any() else rows
        texts = {}
        for title in MEANS:
            part = whole[whole["challenge"] == title]
            values = part.pivot_table("value", "method", "metric")
            text = values["auroc"].map(one)
            if "auroc_deviation" in values:
                text += " ± " + values["auroc_deviation"].map(one)
            texts[MEANS[title]] = text
        cells = self.each(run).pivot_table("value", "method", "place", "mean").map(one)
        single = rows[(rows["metric"] == "auroc") & (rows["fold"] == "all")]
        single = single.dropna(subset="train_seed").assign(
            place=single["challenge"].map(MEANS)
            + ", network "
            + single["train_seed"].map("{:.0f}".format)
        )
        single = single.pivot_table("value", "method", "place").map(one)
        first = whole[(whole["metric"] == "auroc") & (whole["challenge"] == "mean:near")]
        order = first.set_index("method")["value"].sort_values(ascending=False).index
        return named(pd.DataFrame(texts).join(cells).join(single).loc[order])

    def choice(self, _which: str) -> pd.DataFrame:
        """Return the fusions that were best on outliers made of the hold-out, and their parts."""
        rows = pd.read_csv(self.results / "choice.csv", keep_default_na=False)
        rows["kind"] = rows["near"].map({True: "near", False: "far"})
        keys = ["parts", "rectified", "mirrored"]
        wide = rows.pivot_table("auroc", keys, "kind")
        wide["mean"] = (wide["near"] + wide["far"]) / 2
        each = rows.pivot_table("auroc", keys, ["experiment", "kind"])
        each.columns = [", ".join(column) for column in each.columns]
        wide = wide[["mean", "near", "far"]].join(each).sort_values("mean", ascending=False)
        wide = wide.map(one).reset_index()
        return wide.assign(mirrored=wide["mirrored"].map({True: "yes", False: "no"}))

    def overview(self, which: str) -> pd.DataFrame:
        """Return the mean AUROC of every detector in several runs, the best of each in bold."""
        runs = self.facts["overviews"][which]
        wide = pd.DataFrame({title: self.of_means(run)[0]["value"] for title, run in runs.items()})
        wide = wide.loc[wide.mean(axis=1, skipna=False).sort_values(ascending=False).index]
        best = wide.round(1).max()
        texts = wide.apply(lambda column: column.map(one))
        texts = texts.where(wide.round(1) != best, "**" + texts + "**")
        return named(texts)

    def gaps(self, run: str, mean: str = "") -> pd.DataFrame:
        """Return the gaps on a mean over challenges, the only one or MEAN, by pair and turned."""
        rows = self.rows(run)
        rows = rows[(rows["metric"] == "auroc_gap") & (rows["role"] == "main")]
        rows = rows[rows["challenge"] == mean] if mean else rows
        turned = rows.assign(
            method=rows["compared_with"], compared_with=rows["method"],
            value=-rows["value"], lo=-rows["hi"], hi=-rows["lo"],
        )  # fmt: skip
        both = pd.concat([rows, turned]).drop_duplicates(["method", "compared_with"])
        return both.set_index(["method", "compared_with"])

    def pairs(self, run: str) -> pd.DataFrame:
        """Return the gaps that the hypotheses speak of and those to the controls, of each mean."""
        rows = self.rows(run)
        means = [mean for mean in MEANS if (rows["challenge"] == mean).any()]
        parts = []
        for mean in means or [""]:
            gaps = self.gaps(run, mean)
            pairs = [pair for pair in map(tuple, self.facts["pairs"]) if pair in gaps.index]
            parts.append(gaps.loc[pairs].assign(of=f"{MEANS[mean]}: " if mean else ""))
        chosen = pd.concat(parts)
        return pd.DataFrame({
            "pair": [f"{of}`{ours}` minus `{other}`"
                     for (ours, other), of in zip(chosen.index, chosen["of"])],
            "points": chosen["value"].map(signed),
            "interval after Holm": chosen["lo"].map(signed) + " to " + chosen["hi"].map(signed),
            "p after Holm": chosen["p_holm"].map(chance),
        })  # fmt: skip

    def hypotheses(self, _run: str) -> pd.DataFrame:
        """Return the gaps of the hypotheses, without folds and in folds."""
        lines = []
        for hypothesis, run, *pair in self.facts["hypotheses"]:
            whole = self.gaps(f"{run}_unsupervised").loc[tuple(pair)]
            folds = self.gaps(run).loc[tuple(pair)]
            lines.append({
                "hypothesis and run": f"{hypothesis}, `{run}`",
                "pair": "`{}` minus `{}`".format(*pair),
                "points": signed(whole["value"]),
                "interval": f"{signed(whole['lo'])} to {signed(whole['hi'])}",
                "p": chance(whole["p_holm"]), "p, run in folds": chance(folds["p_holm"]),
                "t-test": chance(folds["p_folds"]),
            })  # fmt: skip
        return pd.DataFrame(lines)

    def transfer(self, run: str) -> pd.DataFrame:
        """Return the AUROC of detectors on the challenge they were fitted on and on the others.

        The loss is what detectors fitted on those others have there, less what this one has.
        """
        rows = self.each(run, "transfer")
        wide = rows.pivot_table("value", "method", "place", "mean", sort=False)
        lines = []
        for method, line in wide.iterrows():
            detector, _, seen = method.partition("@")
            others = line.drop(seen)
            theirs = sum(wide.loc[f"{detector}@{place}", place] for place in others.index)
            theirs /= len(others)
            lines.append([f"`{method}`", one(line[seen]), one(others.mean()), one(theirs),
                          one(theirs - others.mean()),
                          f"{one(others.min())} ({others.idxmin()})"])  # fmt: skip
        head = ["fitted on", "on it", "mean of the others", "fitted on them", "loss",
                "lowest of them"]  # fmt: skip
        return pd.DataFrame(lines, columns=head)

    def unseen(self, run: str) -> pd.DataFrame:
        """Return what every detector has on the challenge it was fitted on, and on all others."""
        rows = self.each(run, "main", "transfer")
        parts = rows["method"].str.partition("@")
        seen = (parts[2] == rows["place"]).map({True: "seen", False: "unseen"})
        wide = rows.assign(detector=parts[0], kind=seen).pivot_table(
            "value", ["detector", "train_seed"], "kind", "mean"
        )
        loss = (wide["seen"] - wide["unseen"]).groupby("detector")
        means = wide.groupby("detector").mean().sort_values("unseen", ascending=False)
        spread = loss.min().map(one) + " to " + loss.max().map(one)
        return named(pd.DataFrame({
            "on what it saw": means["seen"].map(one),
            "on what it did not": means["unseen"].map(one),
            "loss": loss.mean().reindex(means.index).map(one),
            "of the networks": spread.reindex(means.index).where(means["seen"].notna(), ""),
        }))  # fmt: skip

    def accuracies(self, _which: str) -> pd.DataFrame:
        """Return the accuracy of the networks that others published, with the command to it."""
        return pd.DataFrame([{
            "network": f"`{name}`", "data set": f"`{dataset}`",
            "published": percent(entry["published_accuracy"]),
            "measured": percent(entry["measured_accuracy"]),
            "remark": entry.get("remark", ""),
            "command": command(name, dataset) if entry["measured_accuracy"] is not None else "",
        } for name, dataset, entry in published_networks()])  # fmt: skip

    def origins(self, _which: str) -> pd.DataFrame:
        """Return where these networks are from, and what they take."""
        return pd.DataFrame([{
            "file": f"`{file}`", "SHA-256": f"`{digest}`", "network": f"`{name}`",
            "data set": f"`{dataset}`",
            **{field: ", ".join(map("{:g}".format, entry[field])) for field in ("mean", "std")},
            "licence": entry["licence"], "origin": f"<{entry['origin']}>",
        } for name, dataset, entry in published_networks()
          for file, digest in entry["files"].items()])  # fmt: skip

    def roundtrips(self, run: str) -> pd.DataFrame:
        """Return how far detectors on gradients lie above the round trip of each set, where ahead.

        A detector is ahead where none of its supervision (fitted on the challenge, or not) is.
        """
        columns = ["supervision", "challenge", "method"]
        sets = self.each(run).groupby(columns)["value"].mean()
        trips = self.each(run, "round_trip")
        trips = trips.assign(challenge=trips["challenge"].str.partition(":")[2])
        both = pd.DataFrame({"set": sets, "trip": trips.groupby(columns)["value"].mean()}).dropna()
        both = both.reset_index().sort_values("set", ascending=False, kind="stable")
        first = both.drop_duplicates(["challenge", "supervision"])
        first = first[first["method"].str.startswith("gradient")
                      & first["supervision"].isin(["none", "training"])]  # fmt: skip
        first = first.sort_values(["challenge", "supervision"])
        return pd.DataFrame({
            "set": first["challenge"],
            "challenge seen": first["supervision"].map({"none": "no", "training": "yes"}),
            "first is": first["method"].map("`{}`".format), "on the set": first["set"].map(one),
            "round trip": first["trip"].map(one),
            "above it": (first["set"] - first["trip"]).map(one),
        })  # fmt: skip

    def unrelated(self, run: str) -> pd.DataFrame:
        """Return the mean AUROC over the challenges that are no relatives of its own."""
        rows = self.each(run)
        related = rows[rows["note"].str.contains("gradient_synthetic: fitted on")]["challenge"]
        rows = rows[~rows["challenge"].isin(related)]
        wide = rows.pivot_table("value", "method", "train_seed", "mean")
        wide.insert(0, "mean", wide.mean(axis=1))
        wide = wide.loc[wide.index.isin(["gradient_synthetic", "gradient_fused", "energy", "msp"])]
        wide = wide.sort_values("mean", ascending=False).map(one)
        wide.columns = ["mean", *(f"network {seed}" for seed in wide.columns[1:])]
        return named(wide)

    def costs(self, run: str) -> pd.DataFrame:
        """Return passes, images per second and memory of every detector, quickest first."""
        text = (self.results / run / "costs.md").read_text(encoding="utf-8")
        lines = [line.strip("|").split("|") for line in text.splitlines() if line[:1] == "|"]
        head, _, *rows = ([cell.strip() for cell in line] for line in lines)
        timed = pd.DataFrame(rows, columns=head)
        timed = timed[timed["with passes, images/s"] != ""]
        speed = timed["with passes, images/s"].str.replace(",", "").astype(float)
        times = speed[timed["detector"] == "msp"].iloc[0] / speed
        return pd.DataFrame({
            "detector": timed["detector"].map("`{}`".format), "forward": timed["forward"],
            "backward": timed["backward"], "images/s": timed["with passes, images/s"],
            "time, `msp` = 1": times.map(one), "peak memory, MiB": timed["peak memory, MiB"],
        }).loc[speed.sort_values(ascending=False, kind="stable").index]  # fmt: skip

    def study(self, name: str, experiment: str, index: str, alone: str) -> pd.DataFrame:
        """Return the AUROC by challenge of each score of a study, mean over the networks."""
        rows = pd.read_csv(self.results / f"{name}.csv", keep_default_na=False)
        rows = rows[rows["experiment"] == experiment]
        rows = rows.assign(alone=pd.to_numeric(rows[alone]))
        wide = rows.pivot_table("auroc", index, "challenge", "mean", sort=False)
        wide["mean"] = wide.mean(axis=1)
        wide["alone"] = rows.groupby(index)["alone"].mean()
        return wide

    def layers(self, experiment: str) -> pd.DataFrame:
        """Return the AUROC of the one-class detector on each part of the network."""
        wide = self.study("layers", experiment, "part", "auroc_without").map(one)
        wide = wide.rename_axis("gradients of").reset_index()
        return wide.rename(columns={"alone": "mean of all others"})

    def fusions(self, experiment: str) -> pd.DataFrame:
        """Return the AUROC of energy joined with each distance, best first."""
        wide = self.study("fusions", experiment, "distance", "auroc_alone")
        wide = wide.sort_values("mean", ascending=False).map(one)
        names = [f"energy and `{name}`" if name else "energy" for name in wide.index]
        wide.insert(0, "score", names)
        return wide.rename(columns={"alone": "mean of the distance alone"})

    def simulation(self, _run: str) -> pd.DataFrame:
        """Return what the comparison does where the truth is known, in percent."""
        rows = pd.read_csv(self.results / "simulation_comparison.csv")
        shares = rows.loc[:, "coverage":].map(one)
        shares.columns = [
            *("interval holds the difference", "of all fits", "two equal ones differ", "of 10"),
            *("of 20", "20 with one named before", "two, t-test over folds"),
        ]
        head = pd.DataFrame({
            "design": rows["design"], "AUROC": rows["auroc"].map("{:.0f}".format),
            "images a side": rows["images"].map("{:,}".format),
        })  # fmt: skip
        return pd.concat([head, shares], axis=1)


def one(value: float) -> str:
    """Return a number with one decimal, "" where it is missing."""
    return "" if pd.isna(value) else f"{value:.1f}"


def signed(value: float) -> str:
    """Return a difference with its sign."""
    return f"{value:+.1f}"


def chance(p: float) -> str:
    """Return a probability in words."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def published_networks() -> list[tuple[str, str, dict[str, Any]]]:
    """Return (backbone, data set, entry) of every network that the catalogue knows."""
    members = {name: load_member("backbone", name) for name in group_files("backbone")}
    return [
        (n, *item) for n, content in members.items() for item in content.get(PUBLISHED, {}).items()
    ]


def command(name: str, dataset: str) -> str:
    """Return the command that measures the accuracy of a published network."""
    return f"`gradbench run backbone={name} dataset={dataset} {SETTING} {MEASURE}`"


def percent(value: float | None) -> str:
    """Return an accuracy in percent, a dash where it is not known."""
    return "–" if value is None else f"{value:.2f}"


def named(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of texts whose index, names of detectors, has become its first column."""
    return table.fillna("").rename("`{}`".format).rename_axis("detector").reset_index()


def appendix(tables: Tables, title: str, parts: list[dict[str, str]], says: str = "") -> str:
    """Return the text of an appendix."""
    blocks = [f"# {title}", f"Written by `python scripts/findings.py` {says or ROWS}"]
    for kind, run in (item for part in parts for item in part.items()):
        if kind in tables.facts["kinds"]:
            there = (tables.results / run / "table.md").is_file()
            name = f"[{run}](../{run}/table.md)" if there else run
            blocks.append(f"## {name}: {tables.facts['kinds'][kind]}")
        table = getattr(tables, kind)(run)
        lines = [table.columns, ["---", *["---:"] * (len(table.columns) - 1)], *table.to_numpy()]
        blocks.append("\n".join(f"| {' | '.join(map(str, line))} |" for line in lines))
    return "\n\n".join(blocks) + "\n"


def main(root: Path, check: bool, facts: Path = FACTS) -> int:
    """Write or check the appendices, and return the exit status."""
    folder = root / "results" / "appendix"
    tables = Tables(root / "results", yaml.safe_load(facts.read_text(encoding="utf-8")))
    faults, known = [], set()
    for name, one_of in tables.facts["appendices"].items():
        path = folder / f"{name}.md"
        text = appendix(tables, one_of["title"], one_of["tables"], one_of.get("says", ""))
        known |= set(DECIMAL.findall(text))
        if not check:
            folder.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            faults.append(f"{path.relative_to(root)}: it is not what the rows give")
    for path in (root / "results" / "tables").glob("*.md"):
        known |= set(DECIMAL.findall(path.read_text(encoding="utf-8")))
    prose = (root / "results" / "FINDINGS.md").read_text(encoding="utf-8")
    unknown = [number for number in dict.fromkeys(DECIMAL.findall(prose)) if number not in known]
    faults += [
        f"results/FINDINGS.md: {number} stands in no table of an appendix or of the papers"
        for number in unknown
    ]
    print("\n".join(faults) or "results/FINDINGS.md and its appendices: what the rows give",
          file=sys.stderr if faults else sys.stdout)  # fmt: skip
    return bool(faults)


if __name__ == "__main__":
    given = sys.argv[1:]
    if given not in ([], ["--check"]):
        sys.exit("usage: python scripts/findings.py [--check]")
    sys.exit(main(Path(__file__).resolve().parents[1], bool(given)))
