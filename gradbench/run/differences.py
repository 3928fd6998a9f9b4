"""Whether two detectors of a run differ: the comparison of pairs on a challenge or a mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gradbench.run.results import Results
from gradbench.run.rows import is_mean
from gradbench.run.verdict import CellName
from gradbench.statistics.bootstrap import BootstrapSamples, combine
from gradbench.statistics.comparison import BOOTSTRAP, compare, corrected_t_p

Interval = tuple[float, float]


def compared(
    results: Results,
    cell: CellName,
    whole: Mapping[str, BootstrapSamples],
    pairs: Sequence[tuple[str, str]],
) -> list[dict[str, Any]]:
    """Return what the rows of some pairs of detectors say, in percentage points.

    The pairs given together are those that Holm's correction counts. `p_folds` is that of the
    corrected t-test, where a protocol has folds and both detectors measure the same images in each.

    Args:
        results: of the run.
        cell: the challenge, or a mean.
        whole: AUROC of every detector, over all networks.
        pairs: names, the first less the second.
    """
    confidence = results.experiment.config["evaluation"]["confidence"]
    own = {name: _interval(results, cell, name, one, confidence) for name, one in whole.items()}
    both = [(whole[a], whole[b]) for a, b in pairs]
    found = compare(both, [(own[a], own[b]) for a, b in pairs], confidence)
    return [
        {
            "compared_with": other,
            "value": 100 * one.value,
            "lo": 100 * one.lo,
            "hi": 100 * one.hi,
            "p": one.p,
            "p_holm": one.p_holm,
            "p_folds": _p_folds(results, cell, whole, name, other),
            "test": BOOTSTRAP,
            "unit": "percentage points",
        }
        for (name, other), one in zip(pairs, found)
    ]


def _interval(
    results: Results, cell: CellName, method: str, whole: BootstrapSamples, confidence: float
) -> Interval:
    """Return the interval that the row of a detector's AUROC prints."""
    verdicts = results.verdicts.get(cell, {}).get(method, {})
    if len(verdicts) == 1:
        (verdict,) = verdicts.values()
        return verdict.interval
    return whole.interval(confidence)


def _p_folds(
    results: Results, cell: CellName, whole: Mapping[str, BootstrapSamples], a: str, b: str
) -> float | None:
    """Return p of the t-test over folds, each the mean of the networks."""
    ratio, count = results.experiment.protocol.ratio, len(whole[a].per_fold)
    if ratio is None or count < 2 or len(whole[b].per_fold) != count:
        return None
    if _folds(results, cell, a) != _folds(results, cell, b):
        return None  # as where detectors fitted on different attacks measure other images
    return corrected_t_p(combine([whole[a], whole[b]], [1, -1]).per_fold, ratio)


def _folds(results: Results, cell: CellName, method: str) -> list[str]:
    """Return which images each fold measures, by challenge and network; of a mean all of its."""
    return [
        verdict.folds
        for name in behind(results, cell, method)
        for verdict in results.verdicts[name][method].values()
    ]


def behind(results: Results, cell: CellName, method: str) -> tuple[CellName, ...]:
    """Return the challenges that a row speaks of: itself, or those of a mean."""
    return cells_of(results, cell[0], method) if is_mean(cell[1]) else (cell,)


def cells_of(results: Results, kind: str, method: str) -> tuple[CellName, ...]:
    """Return the challenges of a kind that a detector was measured on."""
    return tuple(c for c, methods in results.verdicts.items() if c[0] == kind and method in methods)
