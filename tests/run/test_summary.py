"""What is compared on a challenge or a mean, and by which test."""

from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest

from gradbench.run.cases import Case
from gradbench.run.experiment import Cell
from gradbench.run.measurement import CaseResult
from gradbench.run.rows import mean_of
from gradbench.run.summary import _Summary
from gradbench.statistics.bootstrap import BootstrapSamples, EvaluationSettings, combine
from gradbench.statistics.comparison import corrected_t_p, normal_p
from gradbench.statistics.intervals import MetricEstimate
from gradbench.tasks.detection import Detection

CELL = ("adversarial", "fgsm", None)
OTHER = ("adversarial", "bim", None)
MEAN = ("adversarial", mean_of("adversarial"), None)
FOLDS, REPLICATES, RATIO = 5, 400, 0.25


def drawn(seed: int, value: float = 0.8) -> BootstrapSamples:
    rng = np.random.default_rng(seed)
    folds = value + 0.05 * rng.random(FOLDS)
    return BootstrapSamples(folds, folds.mean() + 0.02 * rng.standard_normal(REPLICATES))


def summary(folds: dict, ratio: float | None = RATIO):
    """Return the summary of detectors; `folds` tells by challenge which images theirs measure."""
    cases = []
    for (kind, challenge, level), of in folds.items():
        cell = Cell(challenge, SimpleNamespace(kind=kind), level)
        for i, (name, digest) in enumerate(of.items()):
            lo, hi = drawn(i).interval(0.95)
            estimate = MetricEstimate("auroc", "", "", drawn(i).value, lo, hi, (), 50, 50)
            cases.append(CaseResult(Case("main", cell, name), 0, estimates=[estimate],
                                    samples=drawn(i), fold_digest=digest))  # fmt: skip
    experiment = SimpleNamespace(
        protocol=SimpleNamespace(ratio=ratio),
        evaluation=EvaluationSettings(),
        task=Detection(),
    )
    return _Summary(SimpleNamespace(cases=cases, experiment=experiment), [])


WHOLE = {"a": drawn(0), "b": drawn(1)}
GAP = combine([*WHOLE.values()], [1, -1])
PAIR = [("a", "b")]


@pytest.mark.parametrize("ratio", [RATIO, None])
def test_every_protocol_has_the_paired_bootstrap(ratio):
    (said,) = summary({CELL: {"a": "x", "b": "x"}}, ratio)._compare(CELL, WHOLE, PAIR)
    assert said["test"] == "paired bootstrap over sources"
    assert said["compared_with"] == "b"
    assert said["p"] == said["p_holm"] == normal_p(GAP.value, float(GAP.samples.std(ddof=1)))
    # one protocol has a single rotation, and nothing can be said of its spread
    assert said["p_folds"] == (None if ratio is None else corrected_t_p(GAP.per_fold, RATIO))


@pytest.mark.parametrize("cell", [CELL, MEAN])
def test_folds_of_other_images_are_not_compared_fold_by_fold(cell):
    """Of a mean, one challenge with other images is enough."""
    folds = {CELL: {"a": "x", "b": "y"}, OTHER: {"a": "z", "b": "z"}}
    (said,) = summary(folds)._compare(cell, WHOLE, PAIR)
    assert said["p_folds"] is None
    assert said["p"] == normal_p(GAP.value, float(GAP.samples.std(ddof=1)))


def test_holm_counts_the_pairs_given_together():
    """So those with the best of a row by themselves, and not those of other challenges."""
    whole = {str(i): drawn(i, 0.8 + 0.02 * i) for i in range(4)}
    run = summary({CELL: dict.fromkeys(whole, "x")})
    with_best = [(name, "3") for name in "012"]
    every = [*combinations(whole, 2)]
    of_row, of_all = (run._compare(CELL, whole, pairs) for pairs in (with_best, every))
    least = min(of_row, key=lambda said: said["p"])
    assert least["p_holm"] == pytest.approx(3 * least["p"])
    same = next(x for x, pair in zip(of_all, every) if pair == ("0", "3"))
    assert (same["p"], same["p_holm"]) == pytest.approx((least["p"], 6 * least["p"]))
    assert same["hi"] - same["lo"] > least["hi"] - least["lo"]
