"""The simulation of the comparison: its scores have the AUROC it says, its rows are those kept."""

import csv
import importlib.util
from math import ceil, floor
from pathlib import Path

import numpy as np
import pytest

from gradbench.statistics.metrics import auroc

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script():
    path = ROOT / "scripts" / "simulate_comparison.py"
    spec = importlib.util.spec_from_file_location("simulate_comparison", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("design", ["independent", "twins", "refitted"])
def test_detectors_have_the_auroc_that_is_called_true(script, design):
    setting = script.Setting(design, 0.9, 200, 20)
    told, seen = [], []
    for _ in range(12):
        scores, true = setting.repetition()
        for own, value in zip(scores, true):
            folds = [
                auroc(np.append(part[0][a], part[1][b]), np.arange(len(a) + len(b)) >= len(a))
                for part, (a, b) in zip(own, setting.parts)
            ]
            seen.append(np.mean(folds))
            told.append(value)
    assert np.mean(seen) == pytest.approx(np.mean(told), abs=0.01)
    assert max(told) <= 0.9 + 1e-9
    fitted = {"independent": 0.9, "twins": 0.9, "refitted": 0.88}[design]
    assert np.mean(told) == pytest.approx(fitted, abs=0.012)


def test_a_setting_gives_shares_and_the_same_again(script):
    first, again = (script.Setting("refitted", 0.9, 60, 100).run(6) for _ in range(2))
    assert first == again
    assert {*first} == {*script.COLUMNS[5:]}
    assert all(0 <= share <= 100 for share in first.values())
    assert first["row_2"] <= first["row_20"]


def test_the_rows_kept_are_those_of_the_settings(script):
    with open(ROOT / "results" / "simulation_comparison.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == script.COLUMNS
    settings = [(row["design"], float(row["auroc"]), int(row["images"])) for row in rows]
    assert settings == [(design, level, n) for design in script.DESIGNS for level in (90, 99)
                        for n in script.REPETITIONS]  # fmt: skip
    assert {int(row["replicates"]) for row in rows} == {script.REPLICATES}


def test_what_is_said_of_the_shares_is_what_was_measured():
    """Ranges over all settings stand in docs/FOOTGUNS.md, rounded outwards."""
    with open(ROOT / "results" / "simulation_comparison.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    text = " ".join((ROOT / "docs/FOOTGUNS.md").read_text(encoding="utf-8").split())
    for name, words in {
        "row_2": "in {} of rows of two",
        "row_10": "in {} of ten",
        "row_20": "in {} of twenty",
        "coverage": "holds the true one of these fits in {} of simulations",
        "coverage_fits": "over all fits it held in {}",
        "folds_2": "two equal ones differ in {}",
    }.items():
        shares = [float(row[name]) for row in rows if row[name]]
        said = words.format(f"{floor(min(shares))} to {ceil(max(shares))} %")
        assert said in text
    most = max(float(row["fixed_20"]) for row in rows)
    assert f"in at most {ceil(most)} % where the one to compare with was named" in text
