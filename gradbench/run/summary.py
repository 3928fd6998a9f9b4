"""Rows that speak of several results at once: means over challenges, networks, and differences.

Rows of `metric` auroc with the challenge `mean:SET`: the mean over the challenges and levels of a
challenge_set. With several networks, rows of `fold` networks and no train_seed: their mean with the
interval over images (auroc), and their range (auroc_range; lo and hi are the extremes). Where a
protocol measures published lists, its other measures have means too, and all of them, over several
networks, a mean and a population deviation (auroc_deviation, fpr95_deviation, …). Rows of
auroc_difference: the difference between a detector and the best one of its challenge
(compared_with), with p that there is none; Holm's correction counts the other detectors of that
challenge. Rows of auroc_gap: the same of every pair of detectors, on means alone; Holm's counts all
pairs of the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import fmean, pstdev
from typing import Any

from gradbench.data.image_lists import ImageList
from gradbench.data.imageset import join_notes
from gradbench.run.measurement import CaseResult
from gradbench.run.results import Results
from gradbench.run.rows import DEVIATION, NETWORKS, is_mean, mean_of, row
from gradbench.statistics.bootstrap import BootstrapSamples, combine
from gradbench.statistics.comparison import BOOTSTRAP, compare, corrected_t_p
from gradbench.statistics.metrics import Measure

Place = tuple[str, str, int | None]
"""Challenge_set, challenge and level of a row."""
AUROC = Measure("auroc")
BENCHMARKED = (AUROC, Measure("aupr", "in"), Measure("aupr", "out"), Measure("fpr95", "abnormal"))
"""Measures of benchmarks that have published lists of images."""
Samples = dict[str, dict[int, BootstrapSamples]]
"""Method -> seed of the network -> the headline measure in its resamples."""


def all_rows(results: Results) -> list[dict[str, Any]]:
    """Return the rows of a run: those of its cases, and of means, networks and differences."""
    rows = results.case_rows()
    return rows + _Summary(results, rows).rows()


class _Summary:
    """The compared results of a run by place, method and network."""

    def __init__(self, results: Results, rows: Sequence[Mapping[str, Any]]):
        self.results, self.experiment = results, results.experiment
        self.metric = self.experiment.task.headline.metric
        self.lists: dict[Place, ImageList] = {}
        self.by_place: dict[Place, dict[str, dict[int, CaseResult]]] = {}
        for result in results.cases:
            if result.samples is not None:
                cell = result.case.cell
                place = (cell.kind, cell.name, cell.level)
                if cell.listed:
                    self.lists[place] = cell.listed
                of_place = self.by_place.setdefault(place, {})
                of_place.setdefault(result.case.title, {})[result.seed] = result
        self.sources = {
            (r["challenge_set"], r["challenge"], r["level"]): r["source"]
            for r in rows
            if r["source"]
        }
        self.added: list[dict[str, Any]] = []

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of means, of networks and of differences."""
        samples: dict[Place, Samples] = {
            place: {m: {s: r.samples for s, r in seeds.items()} for m, seeds in methods.items()}
            for place, methods in self.by_place.items()
        }
        samples |= self._means(samples)
        if len(self.experiment.seeds) > 1:
            for place, of_place in samples.items():
                for method, seeds in of_place.items():
                    self._add_networks(place, method, list(seeds.values()))
        for place, of_place in samples.items():
            self._add_differences(place, of_place)
        for place, of_place in samples.items():
            if self._listed_behind(place):
                self._add_benchmarked(place, of_place)
        return self.added

    def _means(self, samples: Mapping[Place, Samples]) -> dict[Place, Samples]:
        """Add the rows of means over the challenges of a set, and return their resamples.

        A mean has a source where its challenges have the same.
        """
        means: dict[Place, Samples] = {}
        for kind in dict.fromkeys(kind for kind, _, _ in samples):
            places = [place for place in samples if place[0] == kind]
            if len(places) < 2:
                continue
            mean = (kind, mean_of(kind), None)
            (*others, first) = {self.sources.get(place, "") for place in places}
            self.sources[mean] = "" if others else first
            for method in dict.fromkeys(m for place in places for m in samples[place]):
                for seed in self.experiment.seeds:
                    averaged = [place for place in places if seed in samples[place].get(method, {})]
                    if len(averaged) < 2:
                        continue
                    whole = combine([samples[place][method][seed] for place in averaged])
                    means.setdefault(mean, {}).setdefault(method, {})[seed] = whole
                    counts = self._counts(
                        [self.by_place[place][method][seed] for place in averaged]
                    )
                    note = f"mean of {len(averaged)} cells: {_in_words(averaged)}"
                    lacking, listed = self._lacking(kind, averaged)
                    note = join_notes(note, lacking, self._related(mean, method))
                    self._add(mean, method, seed, whole, **counts, **listed, note=note)
        return means

    def _listed_behind(self, place: Place) -> bool:
        """Tell whether a row speaks of images of published lists alone."""
        kind, challenge, _ = place
        places = [p for p in self.by_place if p[0] == kind] if is_mean(challenge) else [place]
        return all(one in self.lists for one in places)

    def _lacking(self, kind: str, averaged: Sequence[Place]) -> tuple[str, dict[str, int]]:
        """Return which of a benchmark's sets a mean lacks, and size and images at hand of all."""
        if not all(place in self.lists for place in averaged):
            return "", {}
        sets = self.experiment.benchmark.sets
        own = {name: one for name, one in sets.items() if one.kind == kind}
        found = {}
        for place in averaged:
            result = next(iter(next(iter(self.by_place[place].values())).values()))
            found[self.lists[place].dataset] = result.listed.at_hand
        lacking = [name for name in own if name not in found]
        return f"without {', '.join(lacking)}" if lacking else "", {
            "n_listed": sum(one.count for one in own.values()),
            "n_at_hand": sum(found.values()),
        }

    def _add_benchmarked(self, place: Place, samples: Samples) -> None:
        """Add means of measures besides the first, and deviations of all over the networks."""
        for method, of in samples.items():
            behind = [self.by_place[one][method] for one in self._behind(place, method)]
            counts = self._counts([next(iter(of_one.values())) for of_one in behind])
            for measure in BENCHMARKED:
                values = {
                    s: v for s in of if (v := self._value(place, method, s, measure)) is not None
                }
                named = {"side": measure.side, "metric": measure.metric, **counts}
                if is_mean(place[1]) and measure != AUROC:
                    for seed, value in values.items():
                        note = f"mean of {len(behind)} cells"
                        self._add(place, method, seed, None, value=value, note=note, **named)
                if len(values) < 2:
                    if is_mean(place[1]) and measure == AUROC and len(self.experiment.seeds) == 1:
                        named["metric"] += DEVIATION
                        note = "not measured: one network has no deviation"
                        self._add(place, method, *values, None, fold="", note=note, **named)
                    continue
                count, each = len(values), list(values.values())
                named["fold"] = NETWORKS
                if measure != AUROC:
                    note = f"mean of {count} networks"
                    self._add(place, method, None, None, value=fmean(each), note=note, **named)
                named["metric"] += DEVIATION
                note = f"population deviation of {count} networks"
                self._add(place, method, None, None, value=pstdev(each), note=note, **named)

    def _value(self, place: Place, method: str, seed: int, measure: Measure) -> float | None:
        """Return a measure in percent, of a mean the mean; None where it is not measured."""
        values = [
            100 * estimate.value
            for one in self._behind(place, method)
            if (result := self.by_place[one][method].get(seed))
            for estimate in result.estimates
            if (estimate.metric, estimate.side, estimate.threshold_rule) == measure
        ]
        return fmean(values) if len(values) == len(self._behind(place, method)) else None

    def _add_networks(self, place: Place, method: str, each: list[BootstrapSamples]) -> None:
        values = [100 * samples.value for samples in each]
        related = self._related(place, method)
        note = join_notes(f"mean of {len(each)} networks", related)
        self._add(place, method, None, combine(each), fold=NETWORKS, note=note)
        ends = {"lo": min(values), "hi": max(values), "value": max(values) - min(values)}
        note = join_notes(f"range of {len(each)} networks, not an interval", related)
        metric = f"{self.metric}_range"
        self._add(place, method, None, None, fold=NETWORKS, metric=metric, **ends, note=note)

    def _add_differences(self, place: Place, samples: Samples) -> None:
        """Compare the methods of a place with the best one, and of means all pairs."""
        seeds = self.experiment.seeds
        whole = {m: combine([*of.values()]) for m, of in samples.items() if len(of) == len(seeds)}
        if is_mean(place[1]) and len({self._behind(place, method) for method in whole}) > 1:
            return  # means over different challenges are not compared
        if len(whole) < 2:
            return
        best = max(whole, key=lambda name: round(whole[name].value, 9))
        wanted = {"difference": [(name, best) for name in whole if name != best]}
        if is_mean(place[1]):
            wanted["gap"] = [(b, a) for a, b in combinations(whole, 2)]
        for end, pairs in wanted.items():
            for pair, columns in zip(pairs, self._compare(place, whole, pairs)):
                note = join_notes(*(self._related(place, name) for name in pair))
                seed = seeds[0] if len(seeds) == 1 else None
                metric = f"{self.metric}_{end}"
                self._add(place, pair[0], seed, None, metric=metric, note=note, **columns)

    def _compare(
        self,
        place: Place,
        whole: Mapping[str, BootstrapSamples],
        pairs: Sequence[tuple[str, str]],
    ) -> list[dict[str, Any]]:
        """Return the columns of some pairs of methods, in percentage points.

        The pairs given together are those that Holm's correction counts. `p_folds` is that of the
        corrected t-test, where a protocol has folds and both methods measure the same images in
        each.
        """
        confidence = self.experiment.evaluation.confidence
        intervals = {
            name: self._interval(place, name, of, confidence) for name, of in whole.items()
        }
        both = [(whole[a], whole[b]) for a, b in pairs]
        differences = compare(both, [(intervals[a], intervals[b]) for a, b in pairs], confidence)
        return [
            {
                "compared_with": other,
                "value": 100 * one.value,
                "lo": 100 * one.lo,
                "hi": 100 * one.hi,
                "p": one.p,
                "p_holm": one.p_holm,
                "p_folds": self._p_folds(place, whole, name, other),
                "test": BOOTSTRAP,
                "unit": "percentage points",
            }
            for (name, other), one in zip(pairs, differences)
        ]

    def _interval(
        self, place: Place, method: str, whole: BootstrapSamples, confidence: float
    ) -> tuple[float, float]:
        """Return the interval that the row of a method prints."""
        results = list(self.by_place.get(place, {}).get(method, {}).values())
        if len(results) == 1:
            return results[0].headline.lo, results[0].headline.hi
        return whole.interval(confidence)

    def _p_folds(
        self, place: Place, whole: Mapping[str, BootstrapSamples], a: str, b: str
    ) -> float | None:
        """Return p of the t-test over folds, each the mean of the networks."""
        ratio, count = self.experiment.protocol.ratio, len(whole[a].per_fold)
        if ratio is None or count < 2 or len(whole[b].per_fold) != count:
            return None
        digests = [
            [r.fold_digest for p in self._behind(place, m) for r in self.by_place[p][m].values()]
            for m in (a, b)
        ]
        if digests[0] != digests[1]:
            return None  # as where detectors fitted on different attacks measure other images
        return corrected_t_p(combine([whole[a], whole[b]], [1, -1]).per_fold, ratio)

    def _behind(self, place: Place, method: str) -> tuple[Place, ...]:
        """Return the places that a row speaks of: itself, or for a mean all that were averaged."""
        if not is_mean(place[1]):
            return (place,)
        return tuple(p for p, of in self.by_place.items() if p[0] == place[0] and method in of)

    def _related(self, place: Place, method: str) -> str:
        """Return which challenges of a row are like those that the method makes for itself."""
        related = {}
        for name in self._behind(place, method):
            first = next(iter(self.by_place[name][method].values()))
            if first.related:
                related[name[1]] = first.related
        if not related:
            return ""
        if not is_mean(place[1]):
            return f"{method}: {next(iter(related.values()))}"
        return f"{method}: fitted on {', '.join(related)}, or on what is like them"

    def _counts(self, results: Sequence[CaseResult]) -> dict[str, int | None]:
        """Return the abnormal images of several places, and the normal ones where all agree."""
        repeats = self.experiment.protocol.repeats
        sides = (
            [sum(fold[side] for fold in r.fold_counts) // repeats for r in results]
            for side in (0, 1)
        )
        normal, abnormal = sides
        same = len(set(normal)) == 1
        return {"n_normal": normal[0] if same else None, "n_abnormal": sum(abnormal)}

    def _add(
        self,
        place: Place,
        method: str,
        seed: int | None,
        samples: BootstrapSamples | None,
        **values: Any,
    ) -> None:
        """Add one row; samples give value and interval in percent where they are given."""
        kind, challenge, level = place
        numbers = {}
        if samples is not None:
            lo, hi = samples.interval(self.experiment.evaluation.confidence)
            numbers = {"value": 100 * samples.value}
            if lo < hi:
                numbers |= {"lo": 100 * lo, "hi": 100 * hi}
        results = next(iter(self.by_place[self._behind(place, method)[0]][method].values()))
        columns = {
            **self.results.common(seed),
            "role": results.case.role,
            "challenge_set": kind,
            "challenge": challenge,
            "level": level,
            "source": self.sources.get(place, ""),
            "method": method,
            **self.results.method_columns(results.case.method),
            "protocol": self.experiment.protocol.title,
            "fold": "all",
            "metric": self.metric,
            "unit": "percent",
            **numbers,
        }
        self.added.append(row(**{**columns, **values}))


def _in_words(places: Sequence[Place]) -> str:
    """Return places in words, the levels of a challenge together.

    >>> _in_words([("corruption", "fog", 1), ("corruption", "fog", 3), ("corruption", "snow", 1)])
    'fog 1 3, snow 1'
    """
    levels: dict[str, list[str]] = {}
    for _, name, level in places:
        levels.setdefault(name, []).extend([] if level is None else [str(level)])
    return ", ".join(" ".join([name, *own]) for name, own in levels.items())
