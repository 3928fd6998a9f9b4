"""The protocols of the papers, of public code, across challenges and without challenges."""

from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from gradbench.errors import GradbenchError
from gradbench.protocols.base import Grouped
from gradbench.protocols.presets import Access2023, Icip2020, Reference, Transfer, Unsupervised

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "protocol").glob("*.yaml"))
OWN, OTHER = ("normal", "abnormal"), ("fit", "choose", "measure")


def ids(name, count):
    return np.array([f"{name}/test/{i}" for i in range(count)])


def rows_of(fold):
    return [getattr(getattr(fold, part), side) for part in OTHER for side in OWN]


def same(folds, others):
    return len(folds) == len(others) and all(
        np.array_equal(a, b)
        for one, two in zip(folds, others)
        for a, b in zip(rows_of(one), rows_of(two))
    )


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_protocol_keeps_sources_on_one_side_and_never_measures_what_it_fitted(path):
    protocol = instantiate(OmegaConf.load(path))
    assert protocol.name == path.stem
    assert protocol.description
    assert protocol.explanation.endswith(".")
    for normal, abnormal in ((ids("a", 200), ids("b", 90)), (ids("a", 200), ids("a", 200)[::2])):
        for fold in protocol.folds(normal, abnormal, 0):
            groups = [
                {*normal[part.normal], *abnormal[part.abnormal]}
                for part in (fold.fit, fold.choose, fold.measure)
            ]
            assert not groups[0] & groups[1]
            assert not (groups[0] | groups[1]) & groups[2]
            assert len(fold.measure.normal)
            assert len(fold.measure.abnormal)


def test_what_kept_products_of_grouped_are_known_by_never_changes():
    assert Grouped().settings() == {
        "_target_": "Grouped",
        "name": "grouped",
        "folds": 5,
        "split": "grouped",
    }


def test_settings_tell_apart_what_divides_differently():
    protocols = [
        *(Grouped(), Grouped(split="random"), Grouped(folds=4), Icip2020(), Access2023()),
        *(Icip2020(split="random"), Access2023(repeats=3), Reference(), Transfer(), Unsupervised()),
    ]
    settings = [str(dict(protocol.settings())) for protocol in protocols]
    assert len(set(settings)) == len(settings)


def test_icip2020_is_the_first_rotation_of_40_40_20():
    normal, abnormal = ids("a", 100), ids("b", 50)
    (fold,) = Icip2020().folds(normal, abnormal, 3)
    assert same([fold], Grouped().folds(normal, abnormal, 3)[:1])
    assert [len(rows) for rows in rows_of(fold)] == [40, 20, 40, 20, 20, 10]
    assert Icip2020().ratio is None
    (mirror,) = Icip2020(split="random").folds(normal, normal, 3)
    assert {*mirror.measure.normal} != {*mirror.measure.abnormal}
    (kept,) = Icip2020().folds(normal, normal, 3)
    assert {*kept.measure.normal} == {*kept.measure.abnormal}


def test_access2023_divides_five_folds_twice_and_the_first_are_those_of_grouped():
    normal, abnormal = ids("a", 100), ids("b", 50)
    folds = Access2023().folds(normal, abnormal, 7)
    assert same(folds[:5], Grouped().folds(normal, abnormal, 7))
    assert not same(folds[5:], folds[:5])
    for repeat in (folds[:5], folds[5:]):
        measured = np.concatenate([fold.measure.normal for fold in repeat])
        assert sorted(measured) == list(range(100))
    assert Access2023().ratio == 0.25
    assert same(Access2023(repeats=1).folds(normal, abnormal, 7), folds[:5])


def test_reference_takes_the_first_tenth_in_file_order_and_at_most_a_thousand():
    normal, abnormal = ids("a", 12_000), ids("b", 300)
    (fold,) = Reference().folds(normal, abnormal)
    assert [(rows[0], rows[-1] + 1) for rows in rows_of(fold)] == (
        [(0, 500), (0, 15), (500, 1000), (15, 30), (1000, 12_000), (30, 300)]
    )
    assert same([fold], Reference().folds(normal, abnormal, seed=5))


def test_reference_keeps_twins_together_where_the_files_are_in_the_same_order():
    clean = ids("a", 200)
    (fold,) = Reference().folds(clean, clean)
    assert all(np.array_equal(a, b) for a, b in zip(rows_of(fold)[::2], rows_of(fold)[1::2]))
    assert np.array_equal(fold.fit.normal, np.arange(10))


def test_reference_keeps_twins_together_in_any_order_and_of_any_number():
    rng = np.random.default_rng(0)
    clean = ids("a", 400)
    cases = {
        "shuffled": (clean, rng.permutation(clean)),
        "some": (clean, clean[200:]),
        "noisy": (np.concatenate([clean, clean]), clean),
        "levels": (clean, np.tile(clean, 3)),
    }
    for name, (normal, abnormal) in cases.items():
        (fold,) = Reference().folds(normal, abnormal)
        for side, groups in zip(OWN, (normal, abnormal)):
            tuned = [len(getattr(part, side)) for part in (fold.fit, fold.choose)]
            assert sum(tuned) <= 0.1 * len(groups), name
            assert min(tuned) >= 0.02 * len(groups), name
        parts = [
            {*normal[part.normal], *abnormal[part.abnormal]}
            for part in (fold.fit, fold.choose, fold.measure)
        ]
        assert not parts[0] & parts[1], name
        assert not (parts[0] | parts[1]) & parts[2], name


def test_reference_never_cuts_a_track():
    tracks = np.repeat([f"track{i}" for i in range(50)], 30)
    (fold,) = Reference().folds(tracks, ids("b", 100))
    assert [len(part.normal) for part in (fold.fit, fold.choose)] == [60, 90]
    with pytest.raises(GradbenchError, match=r"fitting gets none of the 9 abnormal images"):
        Reference().folds(tracks, ids("b", 9))


def test_unsupervised_measures_everything_once_and_fits_on_nothing():
    (fold,) = Unsupervised().folds(ids("a", 20), ids("b", 10))
    assert [len(rows) for rows in rows_of(fold)] == [0, 0, 0, 0, 20, 10]
    assert Unsupervised().supervision == ("none", "synthetic")


CLEAN = ids("clean", 100)
PAIRS = {
    "other sets": ((CLEAN, ids("svhn", 60)), (CLEAN, ids("dtd", 40))),
    "twins": ((CLEAN, CLEAN), (CLEAN, np.tile(CLEAN, 2))),
    "a set and its part": ((CLEAN, ids("tiny", 80)), (CLEAN, ids("tiny", 80)[::2])),
    "a set and twins": ((CLEAN, ids("svhn", 60)), (CLEAN, CLEAN)),
    "attacks that did not all succeed": ((CLEAN[::3], CLEAN[::3]), (CLEAN[::2], CLEAN[::2])),
}


@pytest.mark.parametrize("case", PAIRS)
def test_transfer_measures_every_image_once_and_none_whose_source_was_fitted_on(case):
    for fitted, measured in (PAIRS[case], PAIRS[case][::-1]):
        protocol = Transfer()
        folds = protocol.folds(*fitted, 2)
        across = protocol.across(fitted, measured, 2)
        for side, groups in zip(OWN, measured):
            everything = np.concatenate([getattr(rows, side) for rows in across])
            assert sorted(everything) == list(range(len(groups)))
        for fold, rows in zip(folds, across):
            seen = {
                *fitted[0][fold.fit.normal], *fitted[1][fold.fit.abnormal],
                *fitted[0][fold.choose.normal], *fitted[1][fold.choose.abnormal],
            }  # fmt: skip
            assert not seen & {*measured[0][rows.normal], *measured[1][rows.abnormal]}


@pytest.mark.parametrize("case", ["other sets", "twins", "a set and twins"])
def test_transfer_measures_in_the_folds_of_the_measured_challenge(case):
    fitted, measured = PAIRS[case]
    across = Transfer().across(fitted, measured, 2)
    for rows, fold in zip(across, Grouped().folds(*measured, 2)):
        assert np.array_equal(rows.normal, fold.measure.normal)
        assert np.array_equal(rows.abnormal, fold.measure.abnormal)


def test_faulty_settings_are_named():
    for make, words in (
        (lambda: Access2023(repeats=0), "protocol.repeats=0"),
        (lambda: Access2023(folds=2), "protocol.folds=2"),
        (lambda: Transfer(folds=True), "protocol.folds=True"),
        (lambda: Icip2020(split="rondom"), "did you mean random"),
        (lambda: Unsupervised().folds(CLEAN, CLEAN[:0]), "no abnormal image to measure"),
        (lambda: Transfer(folds=50).across((CLEAN, ids("b", 60)), (CLEAN, ids("c", 40))),
         "50 folds need 50 abnormal groups"),
    ):  # fmt: skip
        with pytest.raises(GradbenchError, match=words):
            make()
