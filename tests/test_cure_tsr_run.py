"""`corruption_cure_tsr` from beginning to end on a tiny tree in the layout of CURE-TSR."""

import re

import pytest
from _cure import plant
from _runs import gradbench, one_sentence, rows

from gradbench.run.rows import is_mean

pytestmark = pytest.mark.slow

WORDS = (
    *("run", "experiment=corruption_cure_tsr", "backbone=small_cnn", "dataset.shape=[3,8,8]"),
    *("training.epochs=1", "training.batch=16", "evaluation.replicates=100", "device=cpu"),
    *("detectors=[msp,gradient_logistic]", "data.root=.", "data.download=false"),
    *("controls.random_labels=false", "controls.random_split=false", "out=run", "store=store"),
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cure")
    plant(folder, "Train")
    plant(folder, "Test", challenges={"noise": (1, 5), "snow": (5,)})
    return folder


def test_a_tree_is_measured_and_its_gaps_are_told(tree):
    ran = gradbench(*WORDS, "challenges=[cure_tsr_noise,cure_tsr_snow]", "levels=[1,5]", cwd=tree)
    assert ran.code == 0, ran.err
    found = rows(tree, metric="auroc", fold="all", challenge_set="corruption")
    found = [r for r in found if not is_mean(r["challenge"])]
    told = {(r["challenge"], r["level"], r["source"], r["n_abnormal"]) for r in found}
    assert told == {
        ("cure_tsr_noise", "1", "part", "56"),
        ("cure_tsr_noise", "5", "part", "56"),
        ("cure_tsr_snow", "5", "part", "56"),
    }
    (hole,) = rows(tree, challenge="cure_tsr_snow", level="1")
    assert hole["note"].startswith("not measured: this copy of CURE-TSR has no folder")
    assert hole["note"].endswith("Real_Test/Snow-1")
    # in this tree level 5 has half the light, and that is told apart
    supervised = {r["level"]: float(r["value"]) for r in found if r["method"] != "msp"}
    assert supervised["5"] > 90
    ran = gradbench("plan", *WORDS[1:], "challenges=[cure_tsr_noise]", "levels=[1,5]", cwd=tree)
    assert re.search("outputs   cure_tsr_noise 5, 56 images  +1 of 1 there", ran.out)


def test_the_papers_names_of_the_eight(tree):
    ran = gradbench(*WORDS, "levels=[5]", "limit=28", "out=eight", cwd=tree)
    assert ran.code == 0, ran.err
    table = (tree / "eight" / "table.md").read_text()
    names = "noise lens_blur gaussian_blur dirty_lens exposure snow haze decolor"
    assert all(f"| {name} " in table for name in names.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("challenges=[{use: cure_tsr_noise, type: fog}]",),
            "no challenge type of CURE-TSR named 'fog'",
        ),
        (("dataset=digits",), "noise of CURE-TSR lies beside the signs of dataset=cure_tsr"),
    ],
)
def test_what_there_is_not_is_one_sentence(tree, words, said):
    assert one_sentence(gradbench(*WORDS, *words, cwd=tree)).startswith(said)
