import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from gradbench.errors import GradbenchError
from gradbench.statistics import metrics
from gradbench.statistics.exact_bounds import auroc_bounds, check_bounds
from gradbench.statistics.metrics import MEASURES, Measure, SortedScores


def value(metric, scores, abnormal, side="", rule="", threshold=None, weights=None):
    """Return one number of one weighting."""
    curve = SortedScores(scores, abnormal).curve(None if weights is None else weights[None])
    return curve.value(Measure(metric, side, rule), threshold)[0]


def accuracy(scores, abnormal, threshold=None, weights=None):
    rule = "best" if threshold is None else "choose"
    return value("detection_accuracy", scores, abnormal, "", rule, threshold, weights)


def sample(seed, ties, weighted):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(5, 300))
    abnormal = rng.random(n) < rng.uniform(0.1, 0.9)
    abnormal[:2] = [True, False]
    scores = rng.normal(size=n) + abnormal * rng.uniform(-1, 3)
    if ties:
        scores = np.round(scores * 2)
    weights = rng.integers(0, 4, n).astype(float) if weighted else None
    if weighted:
        weights[:2] = 1
    return scores, abnormal, weights


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_areas_equal_scikit_learn(seed, ties, weighted):
    scores, abnormal, weights = sample(seed, ties, weighted)
    w = np.ones(len(scores)) if weights is None else weights
    balanced = np.where(abnormal, w / w[abnormal].sum(), w / w[~abnormal].sum())
    close = pytest.approx
    assert value("auroc", scores, abnormal, weights=weights) == close(
        roc_auc_score(abnormal, scores, sample_weight=w)
    )
    for side, positive, direction in (("out", abnormal, scores), ("in", ~abnormal, -scores)):
        assert value("aupr", scores, abnormal, side, weights=weights) == close(
            average_precision_score(positive, direction, sample_weight=w)
        )
        assert value("aupr_balanced", scores, abnormal, side, weights=weights) == close(
            average_precision_score(positive, direction, sample_weight=balanced)
        )


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_operating_points_equal_scikit_learns_curve(seed, ties, weighted):
    scores, abnormal, weights = sample(seed, ties, weighted)
    fpr, tpr, _ = roc_curve(abnormal, scores, sample_weight=weights, drop_intermediate=False)
    best = ((tpr + 1 - fpr) / 2).max()
    assert accuracy(scores, abnormal, weights=weights) == pytest.approx(best)
    flagged = fpr[np.argmax(tpr >= 0.95 - 1e-9)]
    assert value("fpr95", scores, abnormal, "abnormal", weights=weights) == pytest.approx(flagged)
    fnr, tnr, _ = roc_curve(~abnormal, -scores, sample_weight=weights, drop_intermediate=False)
    accepted = fnr[np.argmax(tnr >= 0.95 - 1e-9)]
    assert value("fpr95", scores, abnormal, "normal", weights=weights) == pytest.approx(accepted)


def test_hand_worked_example_with_ties():
    # normal 1 2 2 3, abnormal 2 3 3 4: of 16 pairs 11 won, 4 tied, 1 lost.
    scores = np.array([1, 2, 2, 3, 2, 3, 3, 4.0])
    abnormal = np.array([0, 0, 0, 0, 1, 1, 1, 1], dtype=bool)
    assert metrics.auroc(scores, abnormal) == pytest.approx(13 / 16)
    # Above 2: three of four abnormal, one of four normal.
    assert accuracy(scores, abnormal, 2.0) == pytest.approx(0.75)
    assert accuracy(scores, abnormal, 1.99) == pytest.approx(0.625)
    assert accuracy(scores, abnormal) == pytest.approx(0.75)
    assert metrics.best_threshold(scores, abnormal) == 2.5
    # out: at 4 precision 1 (recall 1/4), at 3 precision 3/4 (3/4), at 2 precision 4/7 (1).
    assert value("aupr", scores, abnormal, "out") == pytest.approx(1 / 4 + 3 / 8 + 1 / 7)
    # All normal images are accepted at 3, and three abnormal with them.
    assert value("fpr95", scores, abnormal, "normal") == 0.75
    # All abnormal images are flagged at 2, and three normal with them.
    assert value("fpr95", scores, abnormal, "abnormal") == 0.75


def test_fpr95_takes_the_first_point_of_at_least_95_percent():
    normal, abnormal = np.arange(20.0), np.array([17.5, 18.0, 18.5, 30.0])
    scores = np.concatenate([normal, abnormal])
    sides = np.arange(24) >= 20
    # 19 of 20 are accepted at 18, and with them 17.5 and the tie at 18.
    assert value("fpr95", scores, sides, "normal") == 0.5
    # 3 of 4 would be 75 %: all four must be flagged, at 17.5: normal 18 and 19.
    assert value("fpr95", scores, sides, "abnormal") == pytest.approx(0.1)


def test_perfect_reversed_and_constant_scores():
    abnormal = np.arange(10) >= 5
    scores = np.arange(10.0)
    for values, auroc, best, fpr in (
        (scores, 1, 1, 0),
        (-scores, 0, 0.5, 1),
        (0 * scores, 0.5, 0.5, 1),
    ):
        assert metrics.auroc(values, abnormal) == auroc
        assert accuracy(values, abnormal) == best
        assert value("fpr95", values, abnormal, "normal") == fpr
        assert value("fpr95", values, abnormal, "abnormal") == fpr
    assert metrics.best_threshold(scores, abnormal) == 4.5
    assert metrics.best_threshold(-scores, abnormal) == -np.inf


def test_best_threshold_parts_neighbouring_floats():
    low = 0.1
    high = np.nextafter(low, 1)
    scores, abnormal = np.array([low, high]), np.array([False, True])
    threshold = metrics.best_threshold(scores, abnormal)
    assert accuracy(scores, abnormal, threshold) == 1


def test_integer_weights_count_images_and_zero_leaves_them_out():
    scores, abnormal, weights = sample(4, True, True)
    repeated = np.repeat(np.arange(len(scores)), weights.astype(int))
    for what in MEASURES:
        many = SortedScores(scores, abnormal).curve(weights[None]).value(what, 0.5)
        once = SortedScores(scores[repeated], abnormal[repeated]).curve().value(what, 0.5)
        assert many == pytest.approx(once), what


def test_many_weightings_equal_one_at_a_time():
    scores, abnormal, _ = sample(1, True, False)
    weights = np.random.default_rng(0).random((7, len(scores)))
    many = SortedScores(scores, abnormal).curve(weights)
    for what in MEASURES:
        singles = [
            SortedScores(scores, abnormal).curve(w[None]).value(what, 0.1)[0] for w in weights
        ]
        assert many.value(what, 0.1) == pytest.approx(singles)


def test_a_side_without_weight_is_nan():
    scores, abnormal = np.array([1.0, 2, 3]), np.array([False, False, True])
    weights = np.array([1.0, 1, 0])
    curve = SortedScores(scores, abnormal).curve(np.stack([np.ones(3), weights]))
    for what in MEASURES:
        for threshold in (-1.0, 2.5):
            values = curve.value(what, threshold)
            assert np.isfinite(values[0])
            assert np.isnan(values[1]), what


def test_faulty_scores_are_named():
    with pytest.raises(GradbenchError, match="1 of 3 scores are not numbers"):
        metrics.auroc(np.array([1, np.nan, 2]), np.array([False, True, True]))
    with pytest.raises(GradbenchError, match="no normal image"):
        metrics.auroc(np.array([1.0, 2]), np.array([True, True]))


@pytest.mark.parametrize("ties", [False, True])
def test_bounds_hold_on_random_data(ties):
    for seed in range(150):
        scores, abnormal, weights = sample(seed, ties, seed % 2 == 0)
        best = accuracy(scores, abnormal, weights=weights)
        low, high = auroc_bounds(best)
        auroc = value("auroc", scores, abnormal, weights=weights)
        assert low - 1e-9 <= auroc <= high + 1e-9
        for side in ("normal", "abnormal"):
            fpr = value("fpr95", scores, abnormal, side, weights=weights)
            check_bounds(auroc, best, 10**9, fpr)


def test_numbers_that_contradict_stop_the_run():
    with pytest.raises(GradbenchError, match="AUROC must lie between"):
        check_bounds(auroc=0.7, accuracy=0.9, n=100)
    with pytest.raises(GradbenchError, match="FPR95"):
        check_bounds(auroc=0.95, accuracy=0.9, n=100, fpr95=0.01)
    check_bounds(auroc=0.795, accuracy=0.9, n=100)
