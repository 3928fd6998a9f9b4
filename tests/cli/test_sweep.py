"""`gradbench sweep`: a run of each combination, one store, merged rows."""

import csv

import pytest
from _runs import SMALL, TINY, copy_of, gradbench, kept, one_sentence, reference

JOBS = ("level=1", "level=3")
MERGED = ("results.csv", "levels.png")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return reference(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def swept(finished, tmp_path_factory):
    """Return a folder in which a sweep over two levels was done on the store of a run."""
    here = copy_of(finished, tmp_path_factory.mktemp("sweep"))
    ran = gradbench("sweep", *TINY, "level=1,3", "out='of several, jobs'", cwd=here)
    assert ran.code == 0, ran.err
    assert "2 jobs, rows in of several, jobs/results.csv" in ran.err
    return here


def lines(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_every_job_has_its_folder(swept):
    out = swept / "of several, jobs"
    assert {p.name for p in out.iterdir()} == {*JOBS, *MERGED, "multirun.yaml"}
    for job in JOBS:
        for name in ("results.csv", "table.md", "run.json", "costs.csv", "model"):
            assert (out / job / name).exists()
        levels = {row["level"] for row in lines(out / job / "results.csv")}
        assert levels == {"", job[-1]}


def test_the_rows_of_all_jobs_stand_together(swept):
    out = swept / "of several, jobs"
    merged = lines(out / "results.csv")
    own = [row for job in JOBS for row in lines(out / job / "results.csv")]
    assert {tuple(row.values()) for row in merged} == {tuple(row.values()) for row in own}
    # rows of f and of the identity control are the same in both jobs
    assert len(merged) < len(own)


def test_jobs_share_the_products_of_runs(swept, finished):
    made = kept(swept) - kept(finished)
    assert {step for step, _ in made} == {"challenge", "outputs", "scores", "measures", "resamples"}
    assert sum(step == "challenge" for step, _ in made) == 2
    before = kept(swept)
    assert gradbench("run", *TINY, "levels=[1,3]", cwd=swept).code == 0
    assert kept(swept) == before


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("level=glob(*)", "write the values of level one by one"),
        ("detectors=glob(m*)", "glob chooses among the members of backbone, dataset"),
        ("backbone=glob(nothing*)", "a sweep over backbone has no values to run"),
        ("seed=range(3,3)", "a sweep over seed has no values to run"),
    ],
)
def test_a_sweep_that_would_run_nothing_is_refused(tmp_path, word, text):
    assert text in one_sentence(gradbench("sweep", *TINY, word, cwd=tmp_path))


def test_a_job_that_fails_leaves_the_others_running(finished, tmp_path):
    here = copy_of(finished, tmp_path)
    ran = gradbench("sweep", *TINY, "level=9,1", "out=jobs", cwd=here)
    assert ran.code == 2
    assert "Traceback" not in ran.err
    assert ran.err.splitlines()[-1].startswith("gradbench: gaussian_noise has no level 9")
    assert [p.name for p in (here / "jobs").glob("*/results.csv")] == ["results.csv"]
    assert {row["level"] for row in lines(here / "jobs/results.csv")} == {"", "1"}


def test_jobs_that_differ_in_no_column_are_named(swept, tmp_path):
    here = copy_of(swept, tmp_path)
    old = here / "of several, jobs"
    # what lies there from another sweep is not merged again
    ran = gradbench("sweep", *TINY, "level=1", "out='of several, jobs'", cwd=here)
    assert "1 jobs, rows in" in ran.err
    assert {row["level"] for row in lines(old / "results.csv")} == {"", "1"}
    words = [word for word in TINY if not word.startswith("training.epochs")]
    ran = gradbench("sweep", *words, "training.epochs=1,2", "out=jobs", cwd=here)
    assert ran.code == 0, ran.err
    merged = lines(here / "jobs/results.csv")
    own = lines(here / "jobs/training.epochs=1/results.csv")
    names = {row["variant"].split("; ")[-1] for row in merged}
    assert names == {"training.epochs=1", "training.epochs=2"}
    assert len(merged) == 2 * len(own)


@pytest.mark.parametrize("words", [("level=1,3", "trainig.epochs=2"), ("detector=msp,gradient",)])
def test_what_cannot_be_meant_is_refused_before_any_job(tmp_path, words):
    one_sentence(gradbench("sweep", *SMALL, *words, cwd=tmp_path))
    assert not list(tmp_path.iterdir())
