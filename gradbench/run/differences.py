"""Whether two detectors of a run differ: the p-value of every pair on a challenge or a mean."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from gradbench.evaluation.comparison import corrected_t_p, delong, normal_p
from gradbench.evaluation.replicates import Sampled, combined
from gradbench.evaluation.rows import MEAN
from gradbench.run.judging import kept_scores
from gradbench.run.results import Results
from gradbench.run.verdict import CellName, Verdict


def p_values(
    results: Results, cell: CellName, whole: Mapping[str, Sampled]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the p-value of every pair of detectors, and the name of its test.

    Several folds of the same images: the corrected t-test over folds, each the mean of the
    networks. A single one: DeLong's test where no source stands twice. Otherwise, as where
    detectors fitted on different attacks measure other images in a fold, the spread of the paired
    resamples, in which a source weighs the same wherever it stands.
    """
    names, ratio = list(whole), results.experiment.protocol.ratio
    table = np.ones((len(names), len(names)))
    tests = np.full(table.shape, "", dtype=object)
    alone = _alone(results.verdicts.get(cell, {}))
    folds = {name: _folds(results, cell, name) for name in names}
    for a, b in combinations(range(len(names)), 2):
        one, other = whole[names[a]], whole[names[b]]
        gap = combined([one, other], [1, -1])
        count = len(one.per_fold)
        paired = count > 1 and len(other.per_fold) == count and folds[names[a]] == folds[names[b]]
        if paired and ratio is not None:
            p, test = corrected_t_p(gap.per_fold, ratio), "corrected t-test over folds"
        elif alone:
            p, test = delong(*(alone[names[i]] for i in (a, b)), alone[""]).p, "DeLong's test"
        else:
            p = normal_p(gap.value, float(gap.samples.std(ddof=1)))
            test = "paired bootstrap over sources"
        table[a, b] = table[b, a] = p
        tests[a, b] = tests[b, a] = test
    return table, tests


def _folds(results: Results, cell: CellName, method: str) -> list[str]:
    """Return which images each fold measures, by challenge and network; of a mean all of its."""
    return [
        verdict.folds
        for name in behind(results, cell, method)
        for verdict in results.verdicts[name][method].values()
    ]


def behind(results: Results, cell: CellName, method: str) -> tuple[CellName, ...]:
    """Return the challenges that a row speaks of: itself, or those of a mean."""
    return cells_of(results, cell[0], method) if cell[1] == MEAN else (cell,)


def cells_of(results: Results, kind: str, method: str) -> tuple[CellName, ...]:
    """Return the challenges of a kind that a detector was measured on."""
    return tuple(c for c, methods in results.verdicts.items() if c[0] == kind and method in methods)


def _alone(methods: Mapping[str, Mapping[int, Verdict]]) -> dict[str, np.ndarray]:
    """Return the scores of each detector, and the sides as "", where DeLong's test is in place.

    That is for one network and one fold in which every image has a source of its own.
    """
    found = {}
    for method, seeds in methods.items():
        verdicts = list(seeds.values())
        if len(verdicts) != 1 or not verdicts[0].alone:
            return {}
        ((normal, abnormal),) = kept_scores(verdicts[0].product)
        found[method] = np.concatenate([normal, abnormal])
        found[""] = np.arange(len(normal) + len(abnormal)) >= len(normal)
    return found
