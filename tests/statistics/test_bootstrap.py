"""Resamples that belong together, whatever is measured in them and when."""

import numpy as np
import pytest
from scipy.stats import norm

from gradbench.statistics.bootstrap import (
    FoldScores,
    bootstrap_auroc,
    combine,
    source_weights,
)
from gradbench.statistics.intervals import measure_detection
from gradbench.statistics.metrics import SortedScores


def pair(seed, n=100, gap=0.0, twins=True, folds=5):
    """Return the folds of two detectors on the same images, mostly of one mind."""
    rng = np.random.default_rng(seed)
    made = [], []
    for fold in range(folds):
        groups = np.array([f"a/{fold * n // folds + i}" for i in range(n // folds)])
        others = groups if twins else np.char.replace(groups, "a", "b")
        of_source = rng.normal(size=n // folds)
        normal, abnormal = (of_source + s + rng.normal(size=n // folds) for s in (0, 1.0))
        for own, shift in zip(made, (0, gap)):
            wobble = 0.5 * rng.normal(size=(2, n // folds))
            own.append(FoldScores(normal + wobble[0], groups, abnormal + wobble[1] + shift, others))
    return made


def test_weights_are_exponential_independent_and_of_the_name_alone():
    names = np.array([f"cifar10/test/{i}" for i in range(2000)])
    weights = source_weights(names, range(400), 0)
    assert weights.min() > 0
    assert weights.mean() == pytest.approx(1, abs=0.005)
    assert weights.var() == pytest.approx(1, abs=0.02)
    assert np.quantile(weights, [0.1, 0.5, 0.9]) == pytest.approx(
        -np.log([0.9, 0.5, 0.1]), abs=0.02
    )
    between = np.corrcoef(weights[:, :50].T)[np.triu_indices(50, 1)]
    assert abs(between).max() < 0.25
    assert np.std(between) == pytest.approx(400**-0.5, rel=0.1)
    few = source_weights(names[7:9], range(3, 6), 0)
    assert np.array_equal(few, weights[3:6, 7:9])
    assert not np.allclose(few, source_weights(names[7:9], range(3, 6), 1))


def test_a_resample_is_the_weighted_auroc_of_every_fold():
    folds, _ = pair(0, 50)
    found = bootstrap_auroc(folds, 30, seed=2)
    names = sorted({name for fold in folds for name in fold.normal_groups})
    weights = dict(zip(names, source_weights(names, range(30), 2).T))
    each = []
    for fold in folds:
        scores = np.concatenate([fold.normal, fold.abnormal])
        groups = np.concatenate([fold.normal_groups, fold.abnormal_groups])
        own = np.array([weights[name][11] for name in groups])
        each.append(SortedScores(scores, np.arange(20) >= 10).curve(own[None]).auroc()[0])
    assert found.samples[11] == pytest.approx(np.mean(each))
    assert found.value == pytest.approx(measure_detection(folds, 20)[0].value)


def drawn(folds, replicates=1000):
    """Return AUROC, mean over folds, of sources drawn with replacement within folds."""
    rng = np.random.default_rng(0)
    found = np.zeros(replicates)
    for fold in folds:
        scores = np.concatenate([fold.normal, fold.abnormal])
        groups = np.concatenate([fold.normal_groups, fold.abnormal_groups])
        names, place = np.unique(groups, return_inverse=True)
        counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), replicates)
        side = np.arange(len(scores)) >= len(fold.normal)
        found += SortedScores(scores, side).curve(counts[:, place].astype(float)).auroc()
    return found / len(folds)


def test_the_interval_agrees_with_the_bootstrap_by_drawing():
    for twins in (True, False):
        folds, _ = pair(3, 1000, twins=twins)
        lo, hi = np.quantile(drawn(folds), [0.025, 0.975])
        assert bootstrap_auroc(folds).interval(0.95) == pytest.approx((lo, hi), abs=0.004)


def test_the_interval_of_auroc_is_that_of_the_resamples_which_differences_are_taken_of():
    folds, _ = pair(4, 200)
    own = measure_detection(folds, 300, seed=3)[0]
    assert (own.lo, own.hi) == bootstrap_auroc(folds, 300, seed=3).interval(0.95)
    assert own.value == bootstrap_auroc(folds, 300, seed=3).value


def test_differences_are_paired_whatever_was_measured_before():
    a, b = pair(1, 500, 0.2)
    one, two = bootstrap_auroc(a, 400), bootstrap_auroc(b, 400)
    gap = combine([two, one], [1, -1])
    assert gap.value == pytest.approx(two.value - one.value)
    assert gap.per_fold == pytest.approx(two.per_fold - one.per_fold)
    widths = [hi - lo for lo, hi in (s.interval(0.95) for s in (gap, one, two))]
    assert widths[0] < 0.7 * min(widths[1:])
    back = combine([one, two], [1, -1]).interval(0.95)
    assert back == pytest.approx(tuple(-end for end in gap.interval(0.95)[::-1]))


def test_means_over_challenges_know_that_the_clean_images_are_the_same():
    rng = np.random.default_rng(5)
    names = np.array([f"a/{i}" for i in range(300)])
    normal = rng.normal(size=300)
    parts = [
        bootstrap_auroc([FoldScores(normal, names, rng.normal(size=3000) + 1,
                            np.array([f"{own}/{i}" for i in range(3000)]))], 500)
        for own in "bc"
    ]  # fmt: skip
    mean = combine(parts)
    assert mean.value == pytest.approx((parts[0].value + parts[1].value) / 2)
    # nearly all of the spread is that of the 300 shared images, so the mean has hardly less
    assert mean.samples.std() > 0.85 * parts[0].samples.std()


def test_parts_of_unequal_folds_have_their_value_in_common():
    a, b = pair(1, 100)[0], pair(2, 100, folds=2)[0]
    parts = [bootstrap_auroc(a, 20), bootstrap_auroc(b, 20)]
    mean = combine(parts)
    assert len(mean.per_fold) == 1
    assert mean.value == pytest.approx((parts[0].value + parts[1].value) / 2)


@pytest.mark.slow
def test_paired_intervals_hold_the_truth_about_as_often_as_they_say():
    # score = source + shift + noise of both kinds: AUROC is Phi(gap / sd) with these twins drawn
    # from one population, and sd^2 = 2 (1 + 1 + 0.25)
    gap = 0.3
    truth = norm.cdf((1 + gap) / 4.5**0.5) - norm.cdf(1 / 4.5**0.5)
    held = 0
    for seed in range(200):
        a, b = pair(seed, 200, gap)
        lo, hi = combine([bootstrap_auroc(b, 200), bootstrap_auroc(a, 200)], [1, -1]).interval(0.95)
        held += lo <= truth <= hi
    assert 0.90 <= held / 200 <= 0.985
