"""What stands above a paper's table: under which conventions its numbers were made."""

from __future__ import annotations

from gradbench.report.numbers import accuracies
from gradbench.report.papers.fill import Filled, Filling
from gradbench.report.papers.runs import Run

SAW = {
    "none": "nothing of the challenge",
    "synthetic": "challenges of its own, made from clean images",
    "tuning": "images of the challenge, to choose settings",
    "training": "images of the challenge, to fit weights",
}
UNITS = {"percent": "percent", "fraction": "fractions", "ms": "milliseconds", "count": "counts"}


def conventions(filling: Filling) -> list[str]:
    """Return sentences on the print, the metrics, the networks, the protocol and the detectors."""
    table = filling.table
    units = dict.fromkeys(UNITS.get(one.printed.unit, "") for one in table.wanted)
    papers = dict.fromkeys(one.printed.paper for one in table.wanted)
    decks = dict.fromkeys(d for one in table.wanted for d in one.printed.source.split(";"))
    found = [f"Published: {', '.join(papers)}, as printed on {', '.join(decks)}."]
    if any(units):
        found.append(f"Units: {', '.join(filter(None, units))}, measured values likewise.")
    found += [f"{m.title}: {m.told}" for m in table.metrics.values() if m.told]
    found += [*table.printed, *table.remarks]
    measured = [cell for cell in filling.cells if cell.numbers]
    if measured:
        found += [
            "Measured: with interval where there is one; ≥ is an exact lower bound; a range in "
            "parentheses is that of several networks. Difference: measured less published.",
            *(_network(run) for run in _distinct(filling.runs)),
            *_protocols(filling.runs),
            _balance(measured),
            *_methods(measured),
        ]
    return found


def made_from(filling: Filling) -> list[str]:
    """Return from which runs a table was made, and what was left aside."""
    count = {str(run.path): 0 for run in filling.runs}
    for cell in filling.cells:
        if cell.run is not None:
            count[str(cell.run.path)] += 1
    found = [
        f"Made from {run.path} ({run.begun[:10]}, code {run.commit[:7]}): "
        f"{count[str(run.path)]} cells."
        for run in filling.runs
    ]
    return [*(found or ["Made from no run."]), *filling.chosen.told]


def _distinct(runs: list[Run]) -> list[Run]:
    return list({(run.footing, run.in_dist, run.backbone): run for run in runs}.values())


def _network(run: Run) -> str:
    width = f" of width {run.about['width']}" if run.about["width"] else ""
    seeds = ", ".join(run.about["accuracy"])
    several = "s" if "," in seeds else ""
    return (
        f"Network f: {run.backbone}{width}, trained on {run.in_dist}, seed{several} {seeds}, "
        f"test accuracy {accuracies(run.about)}."
    )


def _protocols(runs: list[Run]) -> list[str]:
    names = dict.fromkeys(run.protocol for run in runs)
    return [f"Protocol: {', '.join(names)}; a value is the mean over its folds."]


def _balance(measured: list[Filled]) -> str:
    """Return how many images of each side were measured."""
    counts: dict[str, dict[str, None]] = {}
    for cell in measured:
        row = next(iter(cell.rows.values()))[0]
        pair = f"{row.n_normal} : {row.n_abnormal}"
        counts.setdefault(pair, {})[cell.place.challenge] = None
    told = "; ".join(
        f"{pair} ({', '.join(names) if len(names) <= 3 else f'{len(names)} challenges'})"
        for pair, names in counts.items()
    )
    return f"Normal : abnormal images measured: {told}."


def _methods(measured: list[Filled]) -> list[str]:
    """Return who each method is here, and what it saw."""
    found = {}
    for cell in measured:
        row = next(iter(cell.rows.values()))[0]
        printed = cell.wanted.printed.method
        clean = "" if row.clean_seen in ("", "none") else f"; of clean images: {row.clean_seen}"
        found[printed] = (
            f"{printed} is `{cell.wanted.detector}`, supervision {row.supervision}: sees "
            f"{SAW.get(row.supervision, row.supervision)}{clean}."
        )
    return list(found.values())
