"""Which test compares two detectors, and that it compares the same images."""

from types import SimpleNamespace

import numpy as np
import pytest

from gradbench.evaluation.comparison import corrected_t_p, normal_p
from gradbench.evaluation.replicates import Sampled, combined
from gradbench.run.differences import p_values
from gradbench.run.verdict import Verdict

CELL = ("adversarial", "fgsm", None)
OTHER = ("adversarial", "bim", None)
MEAN = ("adversarial", "mean", None)
FOLDS, REPLICATES, RATIO = 5, 400, 0.25


def drawn(seed: int) -> Sampled:
    rng = np.random.default_rng(seed)
    return Sampled(0.8 + 0.05 * rng.random(FOLDS), 0.8 + 0.02 * rng.standard_normal(REPLICATES))


def results(folds: dict, ratio: float | None = RATIO):
    """Return results of two detectors; `folds` tells by challenge which images theirs measure."""
    verdicts = {
        cell: {
            name: {0: Verdict(drawn(i), (50, 50), False, None, digest)}
            for i, (name, digest) in enumerate(both.items())
        }
        for cell, both in folds.items()
    }
    protocol = SimpleNamespace(ratio=ratio)
    return SimpleNamespace(verdicts=verdicts, experiment=SimpleNamespace(protocol=protocol))


WHOLE = {"a": drawn(0), "b": drawn(1)}
GAP = combined([*WHOLE.values()], [1, -1])


def test_folds_of_the_same_images_are_compared_fold_by_fold():
    p, test = p_values(results({CELL: {"a": "x", "b": "x"}}), CELL, WHOLE)
    assert test[0, 1] == "corrected t-test over folds"
    assert p[0, 1] == corrected_t_p(GAP.per_fold, RATIO)


@pytest.mark.parametrize("cell", [CELL, MEAN])
def test_folds_of_other_images_are_not_compared_fold_by_fold(cell):
    """Of a mean, one challenge with other images is enough."""
    folds = {CELL: {"a": "x", "b": "y"}, OTHER: {"a": "z", "b": "z"}}
    p, test = p_values(results(folds), cell, WHOLE)
    assert test[0, 1] == test[1, 0] == "paired bootstrap over sources"
    assert p[0, 1] == normal_p(GAP.value, float(GAP.samples.std(ddof=1)))


def test_without_refits_folds_are_no_repetitions():
    _, test = p_values(results({CELL: {"a": "x", "b": "x"}}, ratio=None), CELL, WHOLE)
    assert test[0, 1] == "paired bootstrap over sources"
