"""What is said of several numbers at once: means over challenges, networks, and differences.

Rows of `metric` auroc with the challenge `mean:SET`: the mean over the challenges and levels of a
challenge_set. With several networks, rows of `fold` networks and no train_seed: their mean with the
interval over images (auroc), and their range (auroc_range; lo and hi are the extremes). Rows of
auroc_difference: what separates a detector from the best one of its challenge (compared_with), with
p that nothing does; Holm's correction counts the other detectors of that challenge. Rows of
auroc_gap: the same of every pair of detectors, on means alone; Holm's counts all pairs of the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from gradbench.data.imageset import join_notes
from gradbench.run.differences import behind, cells_of, compared
from gradbench.run.experiment import protocol_name
from gradbench.run.results import Results
from gradbench.run.rows import NETWORKS, is_mean, mean_of, row
from gradbench.run.verdict import CellName, Verdict
from gradbench.statistics.bootstrap import BootstrapSamples, combine

Line = dict[str, dict[int, BootstrapSamples]]
"""Detector -> seed of the network."""
Sources = dict[CellName, str]
"""Where the images of a challenge come from: the column `source`."""


def add(results: Results) -> None:
    """Add the rows of means, of networks and of differences to the results of a run."""
    lines: dict[CellName, Line] = {
        cell: {m: {s: v.sampled for s, v in seeds.items()} for m, seeds in methods.items()}
        for cell, methods in results.verdicts.items()
    }
    sources: Sources = {(r["challenge_set"], r["challenge"], r["level"]): r["source"]
                        for r in results.rows if r["source"]}  # fmt: skip
    lines |= _means(results, lines, sources)
    if len(results.experiment.seeds) > 1:
        for cell, line in lines.items():
            for method, seeds in line.items():
                _add_networks(results, sources, cell, method, list(seeds.values()))
    _add_differences(results, lines, sources)


def _means(
    results: Results, lines: Mapping[CellName, Line], sources: Sources
) -> dict[CellName, Line]:
    """Add the rows of means over the challenges of a kind, and return what they are made of.

    A mean has a source where its challenges have the same.
    """
    found: dict[CellName, Line] = {}
    for kind in dict.fromkeys(kind for kind, _, _ in lines):
        cells = [cell for cell in lines if cell[0] == kind]
        if len(cells) < 2:
            continue
        mean = (kind, mean_of(kind), None)
        (*others, first) = {sources.get(cell, "") for cell in cells}
        sources[mean] = "" if others else first
        for method in dict.fromkeys(m for cell in cells for m in lines[cell]):
            for seed in results.experiment.seeds:
                own = [cell for cell in cells if seed in lines[cell].get(method, {})]
                if len(own) < 2:
                    continue
                of_seed = combine([lines[cell][method][seed] for cell in own])
                found.setdefault(mean, {}).setdefault(method, {})[seed] = of_seed
                counts = _counts([results.verdicts[cell][method][seed] for cell in own], results)
                note = join_notes(f"mean of {len(own)} cells: {_named(own)}",
                               _related(results, mean, method))  # fmt: skip
                _add(results, sources, mean, method, seed, of_seed, **counts, note=note)
    return found


def _add_networks(
    results: Results, sources: Sources, cell: CellName, method: str, each: list[BootstrapSamples]
) -> None:
    values = [100 * sampled.value for sampled in each]
    related = _related(results, cell, method)
    note = join_notes(f"mean of {len(each)} networks", related)
    _add(results, sources, cell, method, None, combine(each), fold=NETWORKS, note=note)
    ends = {"lo": min(values), "hi": max(values), "value": max(values) - min(values)}
    ends |= {
        "metric": "auroc_range",
        "note": join_notes(f"range of {len(each)} networks, not an interval", related),
    }
    _add(results, sources, cell, method, None, None, fold=NETWORKS, **ends)


def _add_differences(results: Results, lines: Mapping[CellName, Line], sources: Sources) -> None:
    """Compare the detectors of every challenge with the best one, and of means all pairs."""
    seeds = results.experiment.seeds
    for cell, line in lines.items():
        whole = {m: combine(list(of.values())) for m, of in line.items() if len(of) == len(seeds)}
        if is_mean(cell[1]) and len({cells_of(results, cell[0], m) for m in whole}) > 1:
            continue  # means over different challenges are not compared
        if len(whole) < 2:
            continue
        best = max(whole, key=lambda name: round(whole[name].value, 9))
        asked = {"auroc_difference": [(name, best) for name in whole if name != best]}
        if is_mean(cell[1]):
            asked["auroc_gap"] = [(b, a) for a, b in combinations(whole, 2)]
        for metric, pairs in asked.items():
            for pair, said in zip(pairs, compared(results, cell, whole, pairs)):
                note = join_notes(*(_related(results, cell, name) for name in pair))
                seed = seeds[0] if len(seeds) == 1 else None
                _add(results, sources, cell, pair[0], seed, None, metric=metric, note=note, **said)


def _related(results: Results, cell: CellName, method: str) -> str:
    """Return which of the challenges of a row the detector's own are alike, in words."""
    found = [
        (name, verdict.related)
        for name in behind(results, cell, method)
        for verdict in list(results.verdicts[name][method].values())[:1]
        if verdict.related
    ]
    if not found:
        return ""
    if not is_mean(cell[1]):
        return f"{method}: {found[0][1]}"
    names = dict.fromkeys(name for (_, name, _), _ in found)
    return f"{method}: fitted on {', '.join(names)}, or on what is like them"


def _counts(verdicts: Sequence[Verdict], results: Results) -> dict[str, int | None]:
    """Return the abnormal images of several cells together, the normal ones where all agree."""
    repeats = results.experiment.protocol.repeats
    normal, abnormal = ([n // repeats for n in side] for side in zip(*(v.counts for v in verdicts)))
    same = len(set(normal)) == 1
    return {"n_normal": normal[0] if same else None, "n_abnormal": sum(abnormal)}


def _named(cells: Sequence[CellName]) -> str:
    """Return cells in words, the levels of a challenge together.

    >>> _named([("corruption", "fog", 1), ("corruption", "fog", 3), ("corruption", "snow", 1)])
    'fog 1 3, snow 1'
    """
    levels: dict[str, list[str]] = {}
    for _, name, level in cells:
        levels.setdefault(name, []).extend([] if level is None else [str(level)])
    return ", ".join(" ".join([name, *own]) for name, own in levels.items())


def _add(results: Results, sources: Sources, cell: CellName, method: str, seed: int | None,
         what: BootstrapSamples | None, **values) -> None:  # fmt: skip
    """Add one row; `what` gives value and interval in percent where it is given."""
    kind, challenge, level = cell
    base = method.partition("@")[0]
    detector = results.experiment.detector(base)
    numbers = {}
    if what is not None:
        lo, hi = what.interval(results.experiment.config["evaluation"]["confidence"])
        numbers = {"value": 100 * what.value}
        if lo < hi:
            numbers |= {"lo": 100 * lo, "hi": 100 * hi}
    results.rows.append(
        row(
            **{
                **results.common(seed),
                "role": "transfer" if "@" in method else "main",
                "challenge_set": kind,
                "challenge": challenge,
                "level": level,
                "source": sources.get(cell, ""),
                "method": method,
                "supervision": detector.supervision,
                "clean_seen": results.images.provenance.describe_clean_seen(detector.clean_seen),
                "protocol": protocol_name(results.experiment.protocol),
                "fold": "all",
                "metric": "auroc",
                "unit": "percent",
                **numbers,
                **values,
            }
        )
    )
