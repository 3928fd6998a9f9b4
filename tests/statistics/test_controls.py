import numpy as np
import pytest

from gradbench.errors import GradbenchError
from gradbench.statistics.controls import (
    LEVEL,
    assert_identical,
    mann_whitney_p,
    random_labels,
)


def test_labels_are_halves_by_group_and_seeded():
    groups = np.repeat([f"track{i}" for i in range(50)], 4)
    labels = random_labels(groups, seed=1)
    assert labels.sum() == 100
    assert all(len(set(labels[groups == g])) == 1 for g in set(groups))
    order = np.random.default_rng(0).permutation(200)
    assert (random_labels(groups[order], seed=1) == labels[order]).all()
    assert (random_labels(groups, seed=2) != labels).any()
    with pytest.raises(GradbenchError, match="at least 2 groups"):
        random_labels(np.array(["a", "a"]))


def test_p_is_uniform_without_an_effect_and_small_with_one():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2 == 0
    p = np.array([mann_whitney_p(rng.normal(size=200), labels) for _ in range(400)])
    assert np.abs(np.sort(p) - (np.arange(400) + 0.5) / 400).max() < 0.08
    assert mann_whitney_p(rng.normal(size=200) + labels, labels) < LEVEL
    assert mann_whitney_p(rng.normal(size=200) - labels, labels) < LEVEL
    assert mann_whitney_p(np.ones(200), labels) == 1


def test_frames_of_a_track_are_not_counted_as_independent():
    rng = np.random.default_rng(1)
    groups = np.repeat([f"track{i}" for i in range(20)], 50)
    wrong = right = 0
    for seed in range(100):
        labels = random_labels(groups, seed)
        scores = np.repeat(rng.normal(size=20), 50) + 0.1 * rng.normal(size=1000)
        wrong += mann_whitney_p(scores, labels) < 0.05
        right += mann_whitney_p(scores, labels, groups) < 0.05
    assert wrong > 50
    assert right < 15


def test_labels_that_part_a_group_are_refused():
    with pytest.raises(GradbenchError, match="drawn by group"):
        mann_whitney_p(np.arange(4.0), np.array([1, 0, 1, 1], bool), np.array(list("aabb")))


def test_identical_means_type_shape_and_every_value():
    a = np.array([1.0, np.nan, 3.0])
    assert_identical(a, a.copy(), "scores")
    with pytest.raises(GradbenchError, match=r"scores of msp .* 1 of 3 values differ, by 0\.5"):
        assert_identical(a, np.array([1.0, np.nan, 3.5]), "scores of msp")
    with pytest.raises(GradbenchError, match=r"float64 .* float32"):
        assert_identical(a, a.astype(np.float32), "scores")
    pixels = np.zeros((2, 3), dtype=np.uint8)
    with pytest.raises(GradbenchError, match="1 of 6 values differ, by 255"):
        assert_identical(pixels, np.array([[0, 0, 0], [0, 0, 255]], dtype=np.uint8), "pixels")
