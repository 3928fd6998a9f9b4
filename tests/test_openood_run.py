"""A run under protocol=openood, with lists that name a part of the embedded sets."""

import csv
from statistics import pstdev

import numpy as np
import pytest
import yaml
from _runs import TINY, gradbench

from gradbench.data import image_lists

pytestmark = pytest.mark.slow
HALF = "{use: patches, name: half, count: 20}"
DIGITS, PATCHES = 30, 40
"""Test images that are spared, and images of the other set that are listed."""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Return the rows of a run of two networks, its table, and what it said."""
    base = tmp_path_factory.mktemp("openood")
    folder = base / "lists/openood"
    folder.mkdir(parents=True)
    spared = {"only": "digits/validation", "count": DIGITS}
    listed = {"without": "digits/validation", "count": 300}
    content = {
        "train": {"file": "train_digits", "splits": {}},
        "test": {"file": "test_digits", "splits": {"test": listed}},
        "validation": {"file": "val_digits", "splits": {"test": spared}},
        "near": {
            "patches": {"file": "test_a", "splits": {"test": {"only": "patches", "count": 50}}},
            "cifar100": {"file": "test_b", "splits": {"test": {"count": 9000}}},
        },
        "shifted": {"file": "test_c", "splits": {"c": {"count": 300}}},
        "far": {"svhn": {"file": "test_svhn", "splits": {"test": {"count": 26032}}}},
    }
    (folder / "digits.yaml").write_text(yaml.safe_dump(content))
    arrays = {"digits/validation": np.arange(DIGITS), "patches": np.arange(PATCHES)}
    np.savez(folder / "numbers.npz", **arrays)
    patch = pytest.MonkeyPatch()
    patch.setattr(image_lists, "FOLDER", base / "lists")
    image_lists.numbers.cache_clear()
    words = ("protocol=openood", "limit=null", "seeds=[0,1]", "out=run",
             f"challenges=[patches,svhn,{HALF},gaussian_noise_images]",
             "detectors=[msp,energy,gradient_logistic]")  # fmt: skip
    said = gradbench("run", *TINY, *words, cwd=base)
    words = ("protocol=openood", "protocol.full_spectrum=true", "limit=60", "out=full",
             "challenges=[patches]", "detectors=[msp]")  # fmt: skip
    full = gradbench("run", *TINY, *words, cwd=base)
    assert full.code == 0, full.err
    patch.undo()
    image_lists.numbers.cache_clear()
    assert said.code == 0, said.err
    with open(base / "run/results.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    with open(base / "full/results.csv", newline="", encoding="utf-8") as stream:
        full = list(csv.DictReader(stream))
    return rows, (base / "run/table.md").read_text(), said, full


def found(rows, **wanted):
    return [r for r in rows if all(r[name] == text for name, text in wanted.items())]


def test_listed_images_alone_are_measured_and_counted(ran):
    rows, *_ = ran
    wanted = {"method": "msp", "metric": "auroc", "fold": "all"}
    (row, _) = found(rows, role="main", challenge="patches", **wanted)
    assert (row["challenge_set"], row["protocol"]) == ("near", "openood")
    assert (row["n_abnormal"], row["n_listed"], row["n_at_hand"]) == ("40", "50", "40")
    assert row["matched"] == "order"
    (network, _) = found(rows, role="network")
    assert network["n_listed"] == "300"
    assert row["n_normal"] == network["n_normal"] == network["n_at_hand"]


def test_a_part_of_a_list_keeps_the_count_of_what_is_at_hand(ran):
    (row, _) = found(ran[0], challenge="half", method="msp", metric="auroc", fold="all")
    assert (row["n_listed"], row["n_at_hand"]) == ("50", "40")
    assert 20 <= int(row["n_abnormal"]) < 40


def test_a_missing_set_is_a_row_that_says_how_many_images_are_missing(ran):
    row, _ = found(ran[0], role="main", challenge="svhn")
    assert row["note"].startswith("not measured: svhn is not on this machine")
    assert (row["challenge_set"], row["n_listed"], row["n_at_hand"]) == ("far", "26032", "0")


def test_other_challenges_count_in_no_mean_of_the_benchmark(ran):
    rows, *_ = ran
    wanted = {"method": "msp", "metric": "auroc", "fold": "all"}
    row, _ = found(rows, challenge="gaussian_noise_images", **wanted)
    assert (row["challenge_set"], row["n_listed"]) == ("ood", "")
    means = {r["challenge"] for r in rows if r["challenge"].startswith("mean:")}
    assert means == {"mean:near"}


def test_means_name_what_they_lack_and_every_measure_has_one(ran):
    rows, *_ = ran
    for measure in (("auroc", ""), ("aupr", "in"), ("aupr", "out"), ("fpr95", "abnormal")):
        named = {"metric": measure[0], "side": measure[1], "method": "energy", "train_seed": "1",
                 "fold": "all", "role": "main"}  # fmt: skip
        (mean,) = found(rows, challenge="mean:near", **named)
        parts = [float(found(rows, challenge=c, **named)[0]["value"]) for c in ("patches", "half")]
        assert float(mean["value"]) == pytest.approx(sum(parts) / 2, abs=1e-5)
    (mean, _) = found(rows, challenge="mean:near", method="msp", metric="auroc", fold="all")
    assert "without cifar100" in mean["note"]
    assert (mean["n_listed"], mean["n_at_hand"]) == ("9050", "40")


def test_networks_have_a_mean_and_a_population_deviation(ran):
    rows, *_ = ran
    for challenge in ("patches", "mean:near"):
        for metric, side in (("auroc", ""), ("fpr95", "abnormal")):
            named = {"challenge": challenge, "method": "msp", "side": side, "role": "main"}
            each = [float(r["value"]) for r in found(rows, metric=metric, fold="all", **named)]
            assert len(each) == 2
            (mean,) = found(rows, metric=metric, fold="networks", **named)
            (spread,) = found(rows, metric=f"{metric}_deviation", fold="networks", **named)
            assert float(mean["value"]) == pytest.approx(sum(each) / 2, abs=1e-5)
            assert float(spread["value"]) == pytest.approx(pstdev(each), abs=1e-5)


def test_detectors_that_see_challenges_are_left_out_and_named(ran):
    rows, table, said, _ = ran
    assert not found(rows, method="gradient_logistic")
    sentence = "Left out, for they see challenges: gradient_logistic (training)."
    assert sentence in table
    assert sentence in said.out


def test_a_full_spectrum_counts_shifted_images_as_normal(ran):
    *_, full = ran
    (row,) = found(full, role="main", challenge="patches", metric="auroc", fold="all")
    assert (row["protocol"], row["n_normal"]) == ("openood_full_spectrum", "120")
    assert "60 of the normal images are shifted (one of 95 families and levels" in row["note"]
    (network,) = found(full, role="network")
    assert network["n_normal"] == "60"  # the accuracy is that on clean images
