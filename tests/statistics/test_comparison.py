"""Tests between detectors, against hand-worked examples, brute force and known answers."""

import numpy as np
import pytest
from scipy.stats import norm, t

from gradbench.statistics.bootstrap import FoldScores, bootstrap_auroc, combine
from gradbench.statistics.comparison import compare, corrected_t_p, decide, holm, normal_p
from gradbench.statistics.metrics import auroc


def two_detectors(seed, n=40, m=30, shift=1.0, ties=False):
    rng = np.random.default_rng(seed)
    abnormal = np.arange(n + m) >= n
    common = rng.normal(size=n + m) + shift * abnormal
    a, b = (common + rng.normal(size=n + m) for _ in range(2))
    return (np.round(a), np.round(b), abnormal) if ties else (a, b, abnormal)


def measured(a, b, abnormal, replicates=1000):
    """Return both detectors in the same resamples of images none of which has a twin."""
    names = np.array([f"image/{i}" for i in range(len(a))])
    return [
        bootstrap_auroc([FoldScores(s[~abnormal], names[~abnormal], s[abnormal], names[abnormal])],
                replicates)
        for s in (a, b)
    ]  # fmt: skip


@pytest.mark.parametrize("ties", [False, True])
def test_the_spread_of_paired_resamples_is_near_the_jackknife_over_images(ties):
    a, b, abnormal = two_detectors(1, 60, 50, ties=ties)
    variance = 0.0
    for side in (False, True):
        rows = np.flatnonzero(abnormal == side)
        gaps = []
        for row in rows:
            kept = np.arange(len(a)) != row
            gaps.append(auroc(a[kept], abnormal[kept]) - auroc(b[kept], abnormal[kept]))
        variance += (len(rows) - 1) ** 2 / len(rows) * np.var(gaps, ddof=1)
    gap = combine(measured(a, b, abnormal, 4000), [1, -1])
    assert gap.samples.std(ddof=1) == pytest.approx(variance**0.5, rel=0.05)


def test_nothing_is_found_in_about_5_percent_where_there_is_nothing():
    found = []
    for seed in range(400):
        both = measured(*two_detectors(seed), replicates=200)
        (one,) = compare([both], [[x.interval(0.95) for x in both]])
        found.append(one.p)
        assert (one.lo <= 0 <= one.hi) == (one.p >= 0.05)
    assert 0.03 < (np.array(found) < 0.05).mean() < 0.085
    same = measured(*two_detectors(3))[0]
    (none,) = compare([(same, same)], [[same.interval(0.95)] * 2])
    assert none == (0, 0, 0, 1, 1)


def test_holm_by_hand():
    # Sorted .01 .02 .03 .04 times 4 3 2 1, never falling: .04 .06 .06 .06.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1, 1])
    assert holm([]).shape == (0,)


WIDE = ((0.0, 1.0), (0.0, 1.0))
"""Own intervals that leave everything possible."""


def test_intervals_of_holms_procedure_by_hand():
    # p of 3 and 2.2 deviations: 0.0027 and 0.0278; of 1 and 1.5: 0.317 and 0.134
    found = decide([0.10, 0.03, 0.15, 0.22], [0.1] * 4, [WIDE] * 4)
    assert [one.p for one in found] == pytest.approx([0.31731, 0.76418, 0.13361, 0.02781], abs=1e-5)
    # 0.0278 * 4 > 0.05: nothing is found, and all intervals are those of the first comparison
    z = norm.isf(0.05 / 4 / 2)
    assert [one.hi - one.value for one in found] == pytest.approx([0.1 * z] * 4)
    found = decide([0.10, 0.27, 0.22], [0.1, 0.1, 0.08], [WIDE] * 3)
    # ordered: 0.00596 * 3 and 0.00693 * 2 (raised to the one before) are found, 0.317 is not
    assert [one.p_holm for one in found] == pytest.approx([0.31731, 0.01787, 0.01787], abs=1e-5)
    z = [norm.isf(0.05 / count / 2) for count in (1, 2, 3)]
    width = [one.value - one.lo for one in found]
    assert width == pytest.approx([0.1 * z[0], 0.1 * z[1], 0.08 * z[2]])


def test_an_interval_holds_zero_exactly_where_the_difference_was_not_found():
    rng = np.random.default_rng(0)
    counted = [0, 0]
    for _ in range(500):
        count = int(rng.integers(1, 12))
        spread = rng.exponential(0.02, count)
        gaps = rng.normal(0, 2.5, count) * spread * rng.integers(0, 2, count)
        confidence = float(rng.choice([0.8, 0.95, 0.99]))
        for one in decide(gaps, spread, [((-9, 9), (-9, 9))] * count, confidence):
            holds = one.lo <= 0 <= one.hi
            assert holds == (one.p_holm >= 1 - confidence)
            assert one.lo <= one.value <= one.hi
            assert one.p <= one.p_holm
            counted[holds] += 1
    assert min(counted) > 200


def test_detectors_whose_own_intervals_do_not_meet_always_differ():
    """With many comparisons Holm alone would call some of them equal."""
    rng = np.random.default_rng(1)
    apart = undecided = 0
    count = 20
    for _ in range(300):
        values = np.append(rng.uniform(0.5, 0.9, count), 0.93)
        own = [(v - 0.03 * rng.random(), min(v + 0.03 * rng.random(), 1)) for v in values]
        spread = np.full(count, 0.02)
        best = own[-1]
        pairs = decide(values[:-1] - values[-1], spread, [(each, best) for each in own[:-1]])
        for each, one in zip(own, pairs):
            assert one.lo <= one.value <= one.hi
            if each[1] < best[0]:
                apart += 1
                undecided += one.p_holm >= 0.05
                assert one.hi < 0
            else:
                assert (one.lo <= 0 <= one.hi) == (one.p_holm >= 0.05)
    assert apart > undecided > 5


def test_equal_resamples_are_no_interval_that_another_could_lie_below():
    """The bootstrap cannot see errors that did not happen: 100 is not 100 to 100."""
    (one,) = decide([-0.0002], [0.0002], [((0.9995, 0.9999), (1.0, 1.0))])
    assert one.hi > 0
    assert one.p == pytest.approx(0.317, abs=1e-3)


def test_corrected_t_by_hand():
    # Mean 2, variance 1, J = 3: t = 2 / sqrt((1/3 + 1/4) * 1) = 2.618615; with 2 degrees of
    # freedom p = 1 - t / sqrt(t^2 + 2).
    assert corrected_t_p([1, 2, 3], 0.25) == pytest.approx(2 * t.sf(2 / np.sqrt(7 / 12), 2))
    assert corrected_t_p([1, 2, 3], 0.25) == pytest.approx(0.120117, abs=1e-6)
    # without the correction it is the ordinary paired t-test
    assert corrected_t_p([1, 2, 3], 0) == pytest.approx(2 * t.sf(2 * np.sqrt(3), 2))


def test_equal_and_constant_differences():
    assert corrected_t_p(np.zeros(5), 0.25) == 1
    assert corrected_t_p(np.full(5, 0.1), 0.25) == 0
    assert (normal_p(0, 0), normal_p(0.1, 0)) == (1, 0)
    assert normal_p(1.959964, 1) == pytest.approx(0.05)


def repeated_differences(rng, folds=5, repeats=2, n=100, noise=8):
    """Return fold differences of two linear classifiers that are equally good on average.

    Both see one informative feature of their own and the same noise; fitted by difference of means
    on all folds but one, they are measured on that one.
    """
    side = np.arange(2 * n) % 2
    x = rng.normal(size=(2 * n, 2 + noise))
    x[:, :2] += 0.8 * side[:, None]
    found = []
    for _ in range(repeats):
        part = rng.permutation(2 * n) % folds
        for fold in range(folds):
            fit, measure = part != fold, part == fold
            right = []
            for own in (0, 1):
                columns = [own, *range(2, 2 + noise)]
                seen, labels = x[fit][:, columns], side[fit]
                means = [seen[labels == s].mean(0) for s in (0, 1)]
                scores = (x[measure][:, columns] - (means[0] + means[1]) / 2) @ (
                    means[1] - means[0]
                )
                right.append(((scores > 0) == side[measure]).mean())
            found.append(right[0] - right[1])
    return np.array(found)


def test_equal_detectors_are_called_different_about_as_often_as_said_and_far_more_uncorrected():
    rng = np.random.default_rng(4)
    differences = [repeated_differences(rng) for _ in range(300)]
    corrected = np.mean([corrected_t_p(d, 0.25) < 0.05 for d in differences])
    naive = np.mean([corrected_t_p(d, 0) < 0.05 for d in differences])
    assert 0.01 <= corrected <= 0.09
    assert naive > 0.12


def test_no_pairs_are_no_differences():
    assert compare([], []) == []
