import numpy as np
import pytest
from scipy.stats import binom, norm

from gradbench.errors import GradbenchError
from gradbench.statistics import metrics
from gradbench.statistics.bootstrap import FoldScores, Sources
from gradbench.statistics.exact_bounds import (
    accuracy_bounds,
    accuracy_from_auroc,
    aupr_from_auroc,
    binomial_lower,
    disjoint_pairs,
    fpr95_from_auroc,
)
from gradbench.statistics.intervals import measure_detection
from gradbench.statistics.metrics import MEASURES, Measure


def folds_of(n, shift, seed=0, folds=5, twins=False, **more):
    """Return folds of n normal and n abnormal images in all, unit Gaussians `shift` apart."""
    rng = np.random.default_rng(seed)
    made = []
    for fold in range(folds):
        k = n // folds
        groups = np.array([f"a/test/{fold * k + i}" for i in range(k)])
        others = groups if twins else np.char.replace(groups, "a", "b")
        made.append(
            FoldScores(rng.normal(size=k), groups, rng.normal(size=k) + shift, others, **more)
        )
    return made


def by_measure(results):
    return {Measure(r.metric, r.side, r.threshold_rule): r for r in results}


def test_values_are_means_over_folds_and_never_pooled():
    folds = folds_of(200, 1.0)
    # A shift of a whole fold changes a pooled AUROC, and no fold's own.
    folds[0] = FoldScores(
        folds[0].normal + 100, folds[0].normal_groups, folds[0].abnormal + 100,
        folds[0].abnormal_groups,
    )  # fmt: skip
    results = by_measure(measure_detection(folds, replicates=50))
    sides = np.arange(80) >= 40
    each = [metrics.auroc(np.concatenate([f.normal, f.abnormal]), sides) for f in folds]
    auroc = results[Measure("auroc")]
    assert auroc.per_fold == pytest.approx(each)
    assert auroc.value == pytest.approx(np.mean(each))
    assert (auroc.n_normal, auroc.n_abnormal) == (200, 200)


def test_every_measure_comes_in_order_with_an_interval_around_its_value():
    choose = np.random.default_rng(5).normal(size=(2, 100))
    folds = folds_of(300, 1.0, choose_normal=choose[0], choose_abnormal=choose[1] + 1, half=0.4)
    results = measure_detection(folds, replicates=200)
    assert [Measure(r.metric, r.side, r.threshold_rule) for r in results] == list(MEASURES)
    for r in results:
        assert 0 <= r.lo <= r.value <= r.hi <= 1
        assert r.lo < r.hi
        assert r.note == ""
        assert len(r.per_fold) == 5
    best, choose, half = (r for r in results if r.metric == "detection_accuracy")
    assert best.value >= choose.value
    sides = np.arange(120) >= 60
    threshold = metrics.best_threshold(
        np.concatenate([folds[0].choose_normal, folds[0].choose_abnormal]), np.arange(200) >= 100
    )
    for rule, at in ((choose, threshold), (half, 0.4)):
        scores = np.concatenate([folds[0].normal, folds[0].abnormal])
        assert rule.per_fold[0] == metrics.SortedScores(scores, sides).curve().accuracy_at(at)[0]


def test_a_missing_threshold_is_a_hole_with_its_reason():
    results = by_measure(measure_detection(folds_of(100, 1.0), replicates=20))
    for rule, word in (("choose", "no images"), ("half", "0.5")):
        hole = results[Measure("detection_accuracy", "", rule)]
        assert np.isnan([hole.value, hole.lo, hole.hi]).all()
        assert hole.note.startswith("not measured: ")
        assert word in hole.note


def test_measuring_is_deterministic_and_blind_to_the_order_of_images():
    folds = folds_of(200, 1.0, twins=True)
    rng = np.random.default_rng(1)
    shuffled = []
    for f in folds:
        p, q = rng.permutation(40), rng.permutation(40)
        shuffled.append(
            FoldScores(f.normal[p], f.normal_groups[p], f.abnormal[q], f.abnormal_groups[q])
        )
    for one, two in zip(measure_detection(folds, 100), measure_detection(shuffled, 100)):
        assert (one.value, one.lo, one.hi) == pytest.approx(
            (two.value, two.lo, two.hi), nan_ok=True
        )
    other = measure_detection(folds, 100, seed=1)[0]
    assert other.lo != measure_detection(folds, 100)[0].lo


@pytest.mark.parametrize(("n", "shift"), [(200, 1.0), (50, 1.0), (10, 1.0)])
def test_intervals_hold_the_truth_about_as_often_as_they_say(n, shift):
    truth = {
        Measure("auroc"): norm.cdf(shift / np.sqrt(2)),
        Measure("detection_accuracy", "", "half"): norm.cdf(shift / 2),
        Measure("fpr95", "normal"): norm.cdf(norm.ppf(0.95) - shift),
    }
    trials = 60
    held = dict.fromkeys(truth, 0)
    for seed in range(trials):
        results = by_measure(
            measure_detection(folds_of(n, shift, seed, half=shift / 2), 200, seed=seed)
        )
        for what, value in truth.items():
            held[what] += results[what].lo <= value <= results[what].hi
    # Not below what 90 % would give in one of 1,000 tests.
    assert min(held.values()) >= binom.ppf(0.001, trials, 0.9)


def test_intervals_are_not_needlessly_wide():
    auroc = measure_detection(folds_of(2000, 1.0), 400)[0]
    # Standard error of AUROC for unit Gaussians one apart, 2,000 a side: about 0.0076.
    assert auroc.hi - auroc.lo == pytest.approx(4 * 0.0076, rel=0.25)


def test_twins_are_drawn_together():
    rng = np.random.default_rng(0)
    groups = np.array([f"a/test/{i}" for i in range(400)])
    level = rng.normal(size=400) * 3
    normal, abnormal = level, level + rng.normal(size=400) * 0.1 + 0.2
    together = measure_detection([FoldScores(normal, groups, abnormal, groups)], 400)[0]
    apart = measure_detection(
        [FoldScores(normal, groups, abnormal, np.char.add(groups, "x"))], 400
    )[0]
    assert together.hi - together.lo < 0.3 * (apart.hi - apart.lo)


def test_weights_keep_the_size_of_each_side_and_give_twins_the_same():
    folds = folds_of(50, 1.0, twins=True)
    extra = np.array(["c/1", "c/2", "c/3"])
    folds[0] = FoldScores(
        np.zeros(13), np.append(folds[0].normal_groups, extra), np.zeros(10),
        folds[0].abnormal_groups,
    )  # fmt: skip
    sources = Sources(folds)
    seen = 0
    for _, weights in sources.resample(500, seed=0):
        for fold, (normal, abnormal) in enumerate(weights):
            shares = normal[:, :10] / abnormal
            assert shares == pytest.approx(np.repeat(shares[:, :1], 10, axis=1))
            # the classes stay in proportion, or AUPR would vary with them
            assert normal.sum(axis=1) == pytest.approx(13 if fold == 0 else 10)
            assert abnormal.sum(axis=1) == pytest.approx(10)
        seen += len(weights[0][0])
        # of weights that are exponential before they are divided by their mean: (n - 1) / (n + 1)
        assert weights[1][0].var() == pytest.approx(9 / 11, rel=0.2)
    assert seen == 500


def test_sources_measured_in_several_folds_are_drawn_together():
    one = folds_of(400, 1.0)
    again = [folds_of(400, 1.0)[i] for i in (1, 2, 3, 4, 0)]
    once, twice = measure_detection(one, 300)[0], measure_detection(one + again, 300)[0]
    # The same scores a second time bring nothing new.
    assert twice.hi - twice.lo == pytest.approx(once.hi - once.lo, rel=0.15)


def test_binomial_bound():
    assert binomial_lower(20, 20, 0.05) == pytest.approx(0.05 ** (1 / 20))
    assert binomial_lower(0, 20, 0.05) == 0
    low = binomial_lower(15, 20, 0.05)
    assert binom.sf(14, 20, low) == pytest.approx(0.05)


@pytest.mark.parametrize("twins", [False, True])
def test_perfect_separation_gets_the_exact_bound(twins):
    folds = folds_of(100, 50.0, twins=twins, half=25.0)
    results = by_measure(measure_detection(folds, 100))
    pairs = 50 if twins else 100
    auroc = results[Measure("auroc")]
    low = 0.05 ** (1 / pairs)
    assert (auroc.value, auroc.hi) == (1, 1)
    assert auroc.lo == pytest.approx(low)
    assert f"{pairs} disjoint pairs" in auroc.note
    half = results[Measure("detection_accuracy", "", "half")]
    assert half.lo == pytest.approx(0.025 ** (1 / 100))
    assert results[Measure("fpr95", "normal")].hi == pytest.approx(min(1, 20 * (1 - low)))
    assert results[Measure("fpr95", "normal")].lo == 0
    best = results[Measure("detection_accuracy", "", "best")]
    assert best.lo == pytest.approx(1 - np.sqrt((1 - low) / 2))
    for side in ("in", "out"):
        aupr = results[Measure("aupr", side)]
        assert 0.5 < aupr.lo < 1 == aupr.hi


def test_the_best_accuracy_is_at_least_that_at_the_chosen_threshold():
    choose = {"choose_normal": np.zeros(5), "choose_abnormal": np.full(5, 50.0)}
    results = by_measure(measure_detection(folds_of(100, 50.0, **choose), 100))
    best = results[Measure("detection_accuracy", "", "best")]
    assert best.lo == pytest.approx(0.025 ** (1 / 100))
    assert "from choose" in best.note


def test_near_100_the_lower_of_bootstrap_and_exact_bound_counts():
    folds = folds_of(1000, 4.2)
    auroc = measure_detection(folds, 200)[0]
    assert 0.995 < auroc.value < 1
    pairs = disjoint_pairs(folds, Sources(folds), 0)
    assert auroc.lo <= pairs.lower(0.05)
    assert auroc.hi == 1
    assert "one-sided" in auroc.note


def test_always_wrong_scores_get_an_upper_bound_and_constant_ones_no_false_certainty():
    wrong = by_measure(measure_detection(folds_of(200, -50.0), 50))
    assert wrong[Measure("auroc")].lo == 0
    assert wrong[Measure("auroc")].hi == pytest.approx(1 - 0.025 ** (1 / 200))
    assert np.isnan(wrong[Measure("fpr95", "normal")].lo)
    assert "no interval" in wrong[Measure("fpr95", "normal")].note
    groups = np.array([f"a/{i}" for i in range(50)])
    flat = [FoldScores(np.zeros(50), groups, np.zeros(50), np.char.add(groups, "x"))]
    auroc = measure_detection(flat, 50)[0]
    assert (auroc.value, auroc.lo, auroc.hi) == (0.5, 0, 1)


def test_pairs_use_no_source_twice_and_are_chosen_blindly():
    groups = np.array([f"a/{i}" for i in range(30)])
    # The score names its image, so that the pairs can be read back from wins.
    for seed in range(5):
        base = FoldScores(np.zeros(30), groups, np.ones(24), groups[:24])
        pairs = disjoint_pairs([base, base], Sources([base, base]), seed)
        # 24 twins and 6 lone normal images make 15 pairs; the second fold has no new source.
        assert pairs == (15, 15, 0)
        total = 0
        for i in range(30):
            one = np.zeros(30)
            one[i] = 2
            with_one = FoldScores(one, groups, np.ones(24), groups[:24])
            total += disjoint_pairs([with_one], Sources([with_one]), seed).lost
        for i in range(24):
            one = np.ones(24)
            one[i] = -1
            with_one = FoldScores(np.zeros(30), groups, one, groups[:24])
            total += disjoint_pairs([with_one], Sources([with_one]), seed).lost
        # Each of the 30 images in pairs was seen once, whatever its score.
        assert total == 30


def test_ties_are_counted_against_the_bound():
    fold = FoldScores(np.zeros(4), list("abcd"), np.array([0.0, 0, 1, 1]), list("efgh"))
    pairs = disjoint_pairs([fold], Sources([fold]), 0)
    assert pairs == (4, 2, 0)
    assert pairs.lower(0.05) == binomial_lower(2, 4, 0.05)
    assert pairs.upper(0.05) == 1


def test_accuracy_bounds_count_each_source_once():
    fold = FoldScores(np.array([0, 0, 9.0]), list("aab"), np.array([9.0, 9, 9]), list("cde"))
    low, high = accuracy_bounds([fold, fold], Sources([fold, fold]), [5.0, 5.0], 0.05)
    assert low == pytest.approx((binomial_lower(1, 2, 0.025) + 0.025 ** (1 / 3)) / 2)
    assert high == pytest.approx((1 - binomial_lower(1, 2, 0.025) + 1) / 2)


@pytest.mark.parametrize("shift", [0.3, 1.0, 2.5])
def test_bounds_carried_over_from_auroc_hold(shift):
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(size=4000), rng.normal(size=1000) + shift])
    curve = metrics.SortedScores(scores, np.arange(5000) >= 4000).curve()
    auroc = curve.auroc()[0]
    assert 0.5 <= accuracy_from_auroc(auroc) <= curve.accuracy_best()[0]
    for side in ("normal", "abnormal"):
        assert curve.fpr95(side)[0] <= fpr95_from_auroc(auroc)
    assert curve.aupr("out")[0] >= aupr_from_auroc(auroc, 0.2)
    assert curve.aupr("in")[0] >= aupr_from_auroc(auroc, 0.8)
    assert curve.aupr("out", balanced=True)[0] >= aupr_from_auroc(auroc, 0.5)


def test_an_empty_side_and_a_score_that_is_no_number_are_named():
    folds = folds_of(100, 1.0)
    empty = np.empty(0)
    with pytest.raises(GradbenchError, match="fold 1 has no abnormal image"):
        measure_detection(
            [folds[0], FoldScores(folds[1].normal, folds[1].normal_groups, empty, empty)]
        )
    folds[2].normal[3] = np.nan
    with pytest.raises(GradbenchError, match="not numbers"):
        measure_detection(folds, 10)
