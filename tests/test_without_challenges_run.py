"""A run with detectors that see no challenge: fitted once, kept once, relatives marked."""

import json

import pytest
from _runs import TINY, about, gradbench, kept, rows, steps

pytestmark = pytest.mark.slow

DETECTORS = (
    "msp",
    "gradient_logistic",
    "knn",
    "gradient_fused_knn",
    "gradient_oneclass_forest",
    "gradient_synthetic",
)
WORDS = (
    *(word for word in TINY if not word.startswith(("detectors", "challenges", "levels"))),
    f"detectors=[{','.join(DETECTORS)}]",
    "challenges=[patches,gaussian_noise,shot_noise]",
    "levels=[5]",
    "limit=60",
    "controls.memorisation=true",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    here = tmp_path_factory.mktemp("run")
    ran = gradbench("run", *WORDS, cwd=here)
    assert ran.code == 0, ran.err
    return here


def test_every_detector_is_measured_and_says_what_it_saw(folder):
    found = rows(folder, metric="auroc", fold="all")
    assert {row["method"] for row in found} == {*DETECTORS}
    seen = {row["method"]: (row["supervision"], row["clean_seen"]) for row in found}
    assert seen["msp"] == ("none", "none")
    assert seen["knn"] == ("none", "f's training images")
    assert seen["gradient_fused_knn"] == ("none", "f's training images, hold-out")
    assert seen["gradient_synthetic"] == ("synthetic", "hold-out")


def test_relatives_of_what_was_fitted_on_are_marked(folder):
    notes = {
        (row["method"], row["challenge"]): row["note"]
        for row in rows(folder, metric="auroc", fold="all")
    }
    own, relative = "fitted on gaussian_noise 3", "fitted on a relative: gaussian_noise 3"
    assert f"gradient_synthetic: {own}" in notes["gradient_synthetic", "gaussian_noise"]
    assert f"gradient_synthetic: {relative}" in notes["gradient_synthetic", "shot_noise"]
    marked = {key for key, note in notes.items() if "fitted on" in note and "memor" not in key[1]}
    places = ("gaussian_noise", "shot_noise", "mean:corruption")
    assert marked == {("gradient_synthetic", place) for place in places}
    (line,) = (
        line
        for line in (folder / "run/table.md").read_text().splitlines()
        if line.startswith("- shot_noise:")
    )
    assert f"gradient_synthetic: {relative}" in line


SYNTHETIC = "gradient_synthetic"


def test_the_mark_stands_in_every_row_that_speaks_of_the_challenge(folder):
    found = [
        *rows(folder, metric="auroc", fold="all", challenge="mean:corruption", method=SYNTHETIC),
        *rows(folder, metric="auroc_difference", challenge="shot_noise"),
    ]
    assert len(found) > 2
    marked = f"{SYNTHETIC}: fitted on"
    about = [row for row in found if SYNTHETIC in (row["method"], row["compared_with"])]
    assert {row["metric"] for row in about} == {"auroc", "auroc_difference"}
    assert all(marked in row["note"] for row in about)
    assert "gaussian_noise, shot_noise" in about[0]["note"]


def test_each_is_fitted_once_and_kept_once(folder):
    assert steps(kept(folder))["fit"] == len(DETECTORS) - 2
    told = json.loads((folder / "run/model/s0/model.json").read_text())
    found = [(d["name"], d["fitted_on"], d["state"]) for d in told["detectors"]]
    assert [line for line in found if line[0] != "gradient_logistic"] == [
        ("msp", "", ""),
        *((name, "", f"detectors/{name}.safetensors") for name in DETECTORS[2:]),
    ]


def test_every_score_is_asked_whether_it_knows_the_training_images(folder):
    found = {row["method"]: row for row in rows(folder, challenge="memorisation")}
    assert {*found} == {*DETECTORS}
    for row in found.values():
        assert (row["challenge_set"], row["metric"], row["fold"]) == ("control", "auroc", "all")
        assert (row["n_normal"], row["n_abnormal"]) == ("1000", "200")
        assert "1000 images that f was trained on, digits/train" in row["note"]
        assert 30 < float(row["value"]) < 70
    assert "gradient_logistic: fitted on patches" in found["gradient_logistic"]["note"]
    assert "knn: fitted on these training images" in found["knn"]["note"]
    assert "| memorisation |" in (folder / "run/table.md").read_text()


def test_the_same_again_computes_nothing(folder):
    ran = gradbench("run", *WORDS, "out=again", cwd=folder)
    assert ran.code == 0, ran.err
    assert json.loads((folder / "again/run.json").read_text())["time"]["products_made"] == 0
    assert about(folder)["time"]["products_made"] > 0
