from pathlib import Path

import numpy as np
import pytest

from gradbench.errors import GradbenchError
from gradbench.protocols.base import Grouped, partition, shuffled
from gradbench.statistics.controls import random_labels

CONFIG = Path(__file__).parents[2] / "configs" / "protocol" / "grouped.yaml"


def ids(name, count):
    return np.array([f"{name}/test/{i}" for i in range(count)])


def measured_in(folds, side, count):
    """Return the fold that measures each image, and check that there is exactly one."""
    part = np.full(count, -1)
    for number, fold in enumerate(folds):
        rows = getattr(fold.measure, side)
        assert (part[rows] == -1).all()
        part[rows] = number
    assert (part >= 0).all()
    return part


CASES = {
    "disjoint": (ids("a", 103), ids("b", 61)),
    "twins": (ids("a", 103), ids("a", 103)),
    "some twins": (ids("a", 103), ids("a", 103)[::3]),
    "levels": (ids("a", 57), np.tile(ids("a", 57), 3)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("split", ["grouped", "random"])
def test_every_image_is_measured_once_and_the_parts_never_overlap(case, split):
    normal, abnormal = CASES[case]
    folds = Grouped(split=split).folds(normal, abnormal, seed=3)
    assert len(folds) == 5
    for side, groups in (("normal", normal), ("abnormal", abnormal)):
        measured_in(folds, side, len(groups))
        for fold in folds:
            parts = [getattr(part, side) for part in (fold.fit, fold.choose, fold.measure)]
            assert sorted(np.concatenate(parts)) == list(range(len(groups)))


@pytest.mark.parametrize("case", CASES)
def test_folds_are_balanced_on_both_sides(case):
    normal, abnormal = CASES[case]
    folds = Grouped().folds(normal, abnormal)
    step = 3 if case == "levels" else 1
    for side in ("normal", "abnormal"):
        sizes = [len(getattr(fold.measure, side)) for fold in folds]
        assert max(sizes) - min(sizes) <= (step if side == "abnormal" else 1)


def test_rotation_fits_on_two_folds_chooses_on_two_and_measures_the_fifth():
    normal, abnormal = ids("a", 50), ids("b", 50)
    folds = Grouped().folds(normal, abnormal)
    part = measured_in(folds, "normal", 50)
    for r, fold in enumerate(folds):
        assert set(part[fold.fit.normal]) == {(r + 1) % 5, (r + 2) % 5}
        assert set(part[fold.choose.normal]) == {(r + 3) % 5, (r + 4) % 5}


@pytest.mark.parametrize("case", ["twins", "some twins", "levels"])
def test_twins_stay_together_when_grouped_and_part_when_random(case):
    normal, abnormal = CASES[case]
    apart = {}
    for split in ("grouped", "random"):
        folds = Grouped(split=split).folds(normal, abnormal)
        where = dict(zip(normal, measured_in(folds, "normal", len(normal))))
        twins = measured_in(folds, "abnormal", len(abnormal))
        apart[split] = np.mean([where[g] != fold for g, fold in zip(abnormal, twins)])
    assert apart["grouped"] == 0
    assert 0.6 < apart["random"] < 0.95


def test_tracks_stay_whole_and_unequal_sizes_are_balanced():
    rng = np.random.default_rng(0)
    tracks = np.repeat([f"track{i}" for i in range(60)], rng.integers(1, 30, 60))
    folds = Grouped().folds(tracks, ids("b", 40))
    part = measured_in(folds, "normal", len(tracks))
    assert all(len(set(part[tracks == track])) == 1 for track in set(tracks))
    sizes = np.bincount(part)
    assert sizes.max() - sizes.min() <= 0.02 * len(tracks)


def test_unequal_shared_groups_are_balanced_on_both_sides():
    rng = np.random.default_rng(1)
    names = [f"region{i}" for i in range(80)]
    normal = np.repeat(names, rng.integers(1, 9, 80))
    abnormal = np.repeat(names[20:], rng.integers(1, 9, 60))
    folds = Grouped().folds(normal, abnormal)
    for side, groups in (("normal", normal), ("abnormal", abnormal)):
        sizes = np.bincount(measured_in(folds, side, len(groups)))
        assert sizes.max() - sizes.min() <= 0.1 * len(groups) / 5


@pytest.mark.parametrize("case", ["disjoint", "twins", "some twins"])
@pytest.mark.parametrize("split", ["grouped", "random"])
def test_the_division_depends_on_names_and_seed_and_not_on_order(case, split):
    normal, abnormal = CASES[case]
    protocol = Grouped(split=split)
    rng = np.random.default_rng(0)
    p, q = rng.permutation(len(normal)), rng.permutation(len(abnormal))
    first = protocol.folds(normal, abnormal, seed=1)
    again = protocol.folds(normal[p], abnormal[q], seed=1)
    other = protocol.folds(normal, abnormal, seed=2)
    one, two, three = (measured_in(f, "normal", len(normal)) for f in (first, again, other))
    assert (one[p] == two).all()
    assert (one != three).any()
    one, two = (measured_in(f, "abnormal", len(abnormal)) for f in (first, again))
    assert (one[q] == two).all()


def test_normal_folds_are_the_same_for_every_challenge_of_other_sources():
    normal = ids("a", 100)
    parts = [
        measured_in(Grouped().folds(normal, ids(name, n)), "normal", 100)
        for name, n in (("b", 50), ("c", 80))
    ]
    assert (parts[0] == parts[1]).all()


def test_the_order_of_names_is_fixed_for_all_time():
    assert shuffled(["a", "b", "c", "d", "a"], "folds", 0) == ["c", "d", "a", "b"]
    assert shuffled(["d", "c", "b", "a"], "folds", 0) == ["c", "d", "a", "b"]


def test_partition_by_hand():
    sizes = {"big": (6,), "mid": (4,), "small": (2,)}
    assert partition(sizes, 2, 0) == {"big": 0, "mid": 1, "small": 1}


def test_too_few_groups_are_one_sentence():
    with pytest.raises(GradbenchError, match=r"5 folds need 5 abnormal groups.*the 4 groups"):
        Grouped().folds(ids("a", 50), np.repeat(ids("b", 4), 10))
    assert len(Grouped(folds=3).folds(ids("a", 50), np.repeat(ids("b", 4), 10))) == 3
    assert len(Grouped(split="random").folds(ids("a", 5), np.repeat(ids("b", 1), 5))) == 5


def test_faulty_settings_are_named():
    with pytest.raises(GradbenchError, match="did you mean grouped"):
        Grouped(split="gruoped")
    with pytest.raises(GradbenchError, match="folds=2"):
        Grouped(folds=2)


def test_random_labels_are_independent_of_the_folds_of_the_same_seed():
    groups = ids("a", 1000)
    labels = random_labels(groups, seed=0)
    part = measured_in(Grouped().folds(groups, ids("b", 5), seed=0), "normal", 1000)
    share = [labels[part == fold].mean() for fold in range(5)]
    assert min(share) > 0.4
    assert max(share) < 0.6
    assert len({round(s, 3) for s in share}) > 1
