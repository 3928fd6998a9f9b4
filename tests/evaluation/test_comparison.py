"""Tests between detectors, against hand-worked examples, brute force and known answers."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import t

from gradbench.errors import GradbenchError
from gradbench.evaluation.comparison import LEVEL, corrected_t_p, delong, holm_pairs, normal_p
from gradbench.evaluation.metrics import auroc


def two_detectors(seed, n=40, m=30, shift=1.0, ties=False):
    rng = np.random.default_rng(seed)
    abnormal = np.arange(n + m) >= n
    common = rng.normal(size=n + m) + shift * abnormal
    a, b = (common + rng.normal(size=n + m) for _ in range(2))
    return (np.round(a), np.round(b), abnormal) if ties else (a, b, abnormal)


@pytest.mark.parametrize("ties", [False, True])
def test_delong_equals_its_definition_pair_by_pair(ties):
    a, b, abnormal = two_detectors(0, ties=ties)
    found = delong(a, b, abnormal)
    of_abnormal, of_normal = [], []
    for scores in (a, b):
        psi = np.array([[(x > y) + (x == y) / 2 for y in scores[~abnormal]]
                        for x in scores[abnormal]])  # fmt: skip
        of_abnormal.append(psi.mean(1))
        of_normal.append(psi.mean(0))
    expected = np.cov(of_abnormal) / 30 + np.cov(of_normal) / 40
    assert found.covariance == pytest.approx(expected)
    assert (found.a, found.b) == pytest.approx((auroc(a, abnormal), auroc(b, abnormal)))


def test_delong_by_hand():
    # normal 1 2, abnormal 2 3: placements of the abnormal 3/4, 1, of the normal 1, 3/4.
    scores, abnormal = np.array([1.0, 2, 2, 3]), np.array([False, False, True, True])
    found = delong(scores, -scores, abnormal)
    assert (found.a, found.b) == pytest.approx((7 / 8, 1 / 8))
    # variances of both placements are 1/32, each divided by 2 images
    assert found.covariance == pytest.approx(np.array([[1, -1], [-1, 1]]) / 32)


def test_delong_is_near_the_jackknife_over_images():
    a, b, abnormal = two_detectors(1, 60, 50)
    found = delong(a, b, abnormal)
    variance = 0.0
    for side in (False, True):
        rows = np.flatnonzero(abnormal == side)
        gaps = []
        for row in rows:
            kept = np.arange(len(a)) != row
            gaps.append(auroc(a[kept], abnormal[kept]) - auroc(b[kept], abnormal[kept]))
        variance += (len(rows) - 1) ** 2 / len(rows) * np.var(gaps, ddof=1)
    own = found.covariance
    assert own[0, 0] + own[1, 1] - 2 * own[0, 1] == pytest.approx(variance, rel=1e-6)


def test_delong_finds_nothing_in_5_percent_where_there_is_nothing():
    p = np.array([delong(*two_detectors(seed)).p for seed in range(600)])
    assert 0.03 < (p < 0.05).mean() < 0.075
    assert delong(*(two_detectors(3)[i] for i in (0, 0, 2))).p == 1


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


def test_holm_over_pairs_by_hand():
    one = np.array([[1, 0.01, 0.04], [0.01, 1, 0.03], [0.04, 0.03, 1]])
    two = np.array([[1, 0.005], [0.005, 1]])
    # ordered 0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 * 1 raised to the one before
    first, second = holm_pairs([one, two])
    assert second[0, 1] == second[1, 0] == pytest.approx(0.02)
    assert first[0] == pytest.approx([1, 0.03, 0.06])
    assert first[2] == pytest.approx([0.06, 0.06, 1])
    assert holm_pairs([np.ones((1, 1))])[0] == 1


def test_choosing_the_best_of_many_equal_detectors_makes_none_of_the_others_worse():
    rng = np.random.default_rng(0)
    found = {"all pairs": 0, "those with the best alone": 0}
    for _ in range(300):
        values = rng.normal(size=10)
        best = values.argmax()
        p = np.array([[normal_p(a - b, 2**0.5) for b in values] for a in values])
        found["all pairs"] += (np.delete(holm_pairs([p])[0][best], best) < LEVEL).any()
        found["those with the best alone"] += (9 * np.delete(p[best], best) < LEVEL).any()
    assert found["all pairs"] / 300 < 0.07
    assert found["those with the best alone"] / 300 > 0.1


def test_faulty_comparisons_are_named():
    with pytest.raises(GradbenchError, match="at least 2 folds"):
        corrected_t_p([0.1], 0.25)
    for sides in product([True, False], repeat=2):
        abnormal = np.array([*sides, True])
        if min(abnormal.sum(), (~abnormal).sum()) < 2:
            with pytest.raises(GradbenchError, match="2 images of each side"):
                delong(np.arange(3.0), np.arange(3.0), abnormal)
