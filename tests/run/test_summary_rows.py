"""Rows of means and differences: they tell where the images of their challenges come from."""

import pytest
from _runs import TINY, copy_of, gradbench, reference, rows


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return reference(tmp_path_factory.getbasetemp())


def test_a_difference_has_the_source_of_its_challenge(finished):
    of = {r["challenge"]: r["source"] for r in rows(finished, metric="auroc", method="msp")}
    found = rows(finished, metric="auroc_difference")
    assert {r["challenge"] for r in found} >= {"patches", "gaussian_noise", "fgsm"}
    for row in found:
        assert row["source"] == of[row["challenge"]] != ""


def test_a_mean_has_a_source_where_its_challenges_have_one(finished, tmp_path):
    here = copy_of(finished, tmp_path)
    (here / "run").rename(here / "before")
    words = (*TINY, "levels=[1,5]", "model.hold_out=0", "limit=200")
    assert gradbench("run", *words, cwd=here, figures=True).code == 0
    assert (here / "run/figures/levels.png").exists()
    means = rows(here, challenge="mean:corruption")
    assert {r["metric"] for r in means} >= {"auroc", "auroc_difference"}
    assert {(r["challenge_set"], r["source"]) for r in means} == {("corruption", "generated")}
