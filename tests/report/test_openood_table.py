"""The table openood_cifar10, filled from runs made by hand."""

import re

import pytest
from _made_runs import measured, write_run

from gradbench.report.finished_run import find_runs
from gradbench.report.papers import document
from gradbench.report.papers.fill import fill
from gradbench.report.papers.table import read_table

COMMON = {"experiment": "openood_cifar10", "protocol": "openood"}
NOTE = "mean of 2 cells: mnist, textures; without svhn, places365"
LISTED = {"n_listed": 136867, "n_at_hand": 71200}


def mean(method, side, value, metric="auroc", **more):
    more = {"challenge_set": side, "source": "", **COMMON} | more
    return measured(f"mean:{side}", method, value, metric, **more)


@pytest.fixture
def filled(tmp_path):
    three = [
        mean("msp", "far", value, train_seed=seed, note=NOTE, **LISTED)
        for seed, value in enumerate((90.0, 91.0, 92.0))
    ]
    over = {"fold": "networks", "train_seed": None}
    three.append(mean("msp", "far", 0.816, "auroc_deviation", half=0, **over))
    three.append(mean("msp", "far", 91.0, **over))  # is not counted as a fourth network
    write_run(tmp_path / "wide", three, "openood_cifar10", protocol="openood")
    one = {"backbone": "resnet20", "width": 16, "note": "mean of 2 cells: cifar100, tiny_imagenet"}
    rows = [mean("knn", "near", 85.0, **one)]
    lone = {"fold": "", "note": "not measured: one network has no deviation"}
    rows.append(mean("knn", "near", None, "auroc_deviation", half=0, **(one | lone)))
    about = {"backbone": "resnet20", "width": 16, "protocol": "openood", "weights": "z"}
    write_run(tmp_path / "thin", rows, "openood_cifar10", **about)
    return fill(read_table("openood_cifar10"), find_runs([tmp_path]))


def cell(filled, method, side, metric):
    found = filled.cells
    found = found[found["method"].eq(method) & found["challenge"].eq(side)]
    return found[found["metric"] == metric]


def test_means_and_deviations_stand_beside_those_of_the_leaderboard(filled):
    (row,) = cell(filled, "MSP", "far", "auroc").to_dict("records")
    assert (row["published"], row["measured"], row["networks"]) == ("90.73", 91.0, "3")
    assert row["difference"] == pytest.approx(0.27)
    (row,) = cell(filled, "MSP", "far", "auroc_deviation").to_dict("records")
    assert (row["published"], row["measured"]) == ("0.43", 0.816)
    assert row["best"] == ""  # the smallest deviation is no merit


def test_remarks_name_the_sets_and_count_the_images_of_a_mean(filled):
    (row,) = cell(filled, "MSP", "far", "auroc").to_dict("records")
    assert f"far, {NOTE}; 71,200 of 136,867 listed images at hand" in row["marks"]


def test_a_single_network_has_no_deviation(filled):
    reasons = set(cell(filled, "KNN", "near", "auroc_deviation")["reason"])
    assert any("one network has no deviation" in reason for reason in reasons)


def test_a_method_without_a_detector_says_so_beside_measured_ones(filled):
    lines = document.markdown(filled).splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("|") and " OTOD " in line)
    assert re.search(r"measured \[\w+\]", lines[place + 1])
    assert "–" in lines[place + 1]
    assert "method not built: OTOD" in document.markdown(filled)


def test_other_trainings_are_not_measured_under_the_name_of_a_method(filled):
    assert set(cell(filled, "OE: MSP", "far", "auroc")["measured"].isna()) == {True}


def test_a_line_counts_the_networks_and_not_their_deviation(filled):
    lines = [line for line in document.markdown(filled).splitlines() if "91.0" in line]
    assert any("measured, resnet18, 3 seeds" in line for line in lines), lines
