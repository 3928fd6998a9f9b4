"""`gradbench sweep`: a run of each combination, one store, merged rows."""

import csv

import pytest
from _runs import SMALL, TINY, copy_of, gradbench, kept, one_sentence, reference

pytestmark = pytest.mark.slow

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
    assert {p.name for p in out.iterdir()} == {*JOBS, *MERGED, "sweep.json"}
    for job in JOBS:
        for name in ("results.csv", "table.md", "run.json", "costs.csv", "model"):
            assert (out / job / name).exists()
        levels = {row["level"] for row in lines(out / job / "results.csv")}
        assert levels == {"0", job[-1]}


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
    assert {row["level"] for row in lines(here / "jobs/results.csv")} == {"0", "1"}


def test_jobs_that_differ_in_no_column_are_named(swept, tmp_path):
    here = copy_of(swept, tmp_path)
    old = here / "of several, jobs"
    # what lies there from another sweep is not merged again
    ran = gradbench("sweep", *TINY, "level=1", "out='of several, jobs'", cwd=here)
    assert "1 jobs, rows in" in ran.err
    assert {row["level"] for row in lines(old / "results.csv")} == {"0", "1"}
    words = [word for word in TINY if not word.startswith("training.epochs")]
    ran = gradbench("sweep", *words, "training.epochs=1,2", "out=jobs", cwd=here)
    assert ran.code == 0, ran.err
    merged = lines(here / "jobs/results.csv")
    own = lines(here / "jobs/training.epochs=1/results.csv")
    names = {row["variant"].split("; ")[-1] for row in merged}
    assert names == {"training.epochs=1", "training.epochs=2"}
    assert len(merged) == 2 * len(own)


def test_the_folder_of_a_sweep_stands_for_its_runs(swept, tmp_path):
    ran = gradbench("show", "of several, jobs", cwd=swept)
    assert (ran.code, ran.err) == (0, "")
    commands = [f"  gradbench show 'of several, jobs/{job}'" for job in JOBS]
    assert ran.out.splitlines() == ["of several, jobs is the folder of a sweep, its runs are:",
                                    *commands]  # fmt: skip
    ran = gradbench("report", "of several, jobs", f"out={tmp_path}/r.html", cwd=swept)
    assert (ran.code, ran.err) == (0, "")
    assert ": 2 runs, " in ran.out


def test_a_killed_sweep_leaves_what_an_undisturbed_one_does(swept, tmp_path):
    here = copy_of(swept, tmp_path)
    out = here / "of several, jobs"
    before = {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()}
    (out / ".gradbench-jobs").mkdir()  # what it had begun
    (out / ".gradbench-jobs/multirun.yaml").write_text("hydra: {}\n")
    (out / ".gradbench-jobs/7.json").write_text('"level=9"')
    (out / ".gradbench-lock").write_text("")
    (out / "levels.png").unlink()
    ran = gradbench("sweep", *TINY, "level=1,3", "out='of several, jobs'", cwd=here)
    assert ran.code == 0, ran.err
    assert {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()} == before
    assert {p.name for p in out.iterdir()} == {*JOBS, *MERGED, "sweep.json"}


def test_a_sweep_leaves_files_of_others_alone(swept, tmp_path):
    here = copy_of(swept, tmp_path)
    (here / "mine").mkdir()
    (here / "mine/results.csv").write_text("mine")
    sentence = one_sentence(gradbench("sweep", *TINY, "level=1,3", "out=mine", cwd=here))
    assert sentence.startswith("mine holds results.csv, of which no sweep.json of gradbench speaks")
    words = [word for word in TINY if not word.startswith("training.epochs")]
    words += ["training.epochs=3", "level=1,3", "out='of several, jobs'"]
    sentence = one_sentence(gradbench("sweep", *words, cwd=here))
    assert sentence.startswith("of several, jobs holds the sweep quickstart, and this sweep, ")
    assert "training.epochs=2 there and 3 here" in sentence
    assert [path.name for path in (here / "mine").iterdir()] == ["results.csv"]


@pytest.mark.parametrize("words", [("level=1,3", "trainig.epochs=2"), ("detector=msp,gradient",)])
def test_what_cannot_be_meant_is_refused_before_any_job(tmp_path, words):
    one_sentence(gradbench("sweep", *SMALL, *words, cwd=tmp_path))
    assert not list(tmp_path.iterdir())
