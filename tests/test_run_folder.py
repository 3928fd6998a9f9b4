"""What a run replaces in its folder: its own files, and those of nobody else."""

import json
import threading

import pytest
from _runs import SMALL, TINY, copy_of, gradbench, one_sentence, reference, same_results

from gradbench.report import claim
from gradbench.report.finished_run import list_files
from gradbench.run.run import run as carry_out
from gradbench.support.locks import file_lock


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return reference(tmp_path_factory.getbasetemp())


def files(folder):
    """Return the content of every file of a folder."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_file_is_listed(finished):
    told = json.loads((finished / "run/run.json").read_text())["files"]
    there = {p.relative_to(finished / "run").as_posix() for p in (finished / "run").rglob("*.*")}
    assert set(told) == there - {"run.json"}
    assert told == list_files(finished / "run")


def test_files_of_others_are_refused_before_any_work_and_left_alone(finished, tmp_path):
    here = copy_of(finished, tmp_path)
    mine = here / "mine"
    for name in ("model/my_weights.pt", "figures/fig1.png", "results.csv"):
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text("mine")
    before = files(mine)
    sentence = one_sentence(gradbench("run", *TINY, "out=mine", cwd=here))
    assert sentence.startswith("mine holds results.csv, of which no run.json of gradbench speaks: ")
    assert files(mine) == before
    (mine / "results.csv").rename(mine / "rows.csv")
    assert gradbench("run", *TINY, "out=mine", cwd=here).code == 0
    kept = files(mine)
    assert all(kept[path] == b"mine" for path in before if path.name != "results.csv")


def test_out_may_be_the_working_folder(finished, tmp_path):
    here = copy_of(finished, tmp_path)
    for name in ("model/my_weights.pt", "figures/fig1.png", "notes.md"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("mine")
    assert gradbench("run", *TINY, "out=.", cwd=here).code == 0
    for name in ("model/my_weights.pt", "figures/fig1.png", "notes.md"):
        assert (here / name).read_text() == "mine"
    assert (here / "model/s0/model.json").is_file()
    assert same_results(finished, here)  # the run beside it is not touched


def test_another_configuration_is_refused_and_one_more_detector_is_not(finished, tmp_path):
    here = copy_of(finished, tmp_path)
    before = files(here / "run")
    other = ("training.epochs=3", "evaluation.seed=1")
    sentence = one_sentence(gradbench("run", *SMALL, *other, cwd=here))
    assert sentence.startswith("run holds the run quickstart, and this run, quickstart, is another")
    assert "evaluation.seed=0 there and 1 here, training.epochs=2 there and 3 here" in sentence
    assert sentence.endswith("for example out=run-2")
    assert files(here / "run") == before
    more = "detectors=[msp,gradient_logistic,energy]"
    ran = gradbench("run", *SMALL, more, cwd=here)
    assert ran.code == 0
    assert "no longer holds" not in ran.err
    assert "energy" in (here / "run/table.md").read_text()
    # figures that are not drawn here (see `_runs.gradbench`) were the run's own, and are gone
    assert not list((here / "run/figures").iterdir())
    fewer = gradbench("run", *SMALL, "detectors=[energy]", cwd=here)
    (line,) = [line for line in fewer.err.splitlines() if line.startswith("run: ")]
    assert line == "run: no longer holds detectors msp, gradient_logistic, as a former call did"


def test_a_folder_that_became_another_runs_meanwhile(finished, tmp_path, monkeypatch):
    here = copy_of(finished, tmp_path)
    (here / "run").rename(here / "first")

    def slow(experiment, store):
        copy_of(here / "first", here / "run")
        told = json.loads((here / "run/run.json").read_text())
        told["config"]["name"] = "theirs"
        (here / "run/run.json").write_text(json.dumps(told))
        return carry_out(experiment, store)

    monkeypatch.setattr("gradbench.run.run.run", slow)
    sentence = one_sentence(gradbench("run", *TINY, cwd=here))
    assert sentence.startswith("run holds the run theirs, and this run, quickstart, is another")
    assert not (here / "run/.gradbench-part").exists()
    assert same_results(finished, here)


def test_a_second_run_waits_while_one_writes(finished, tmp_path, monkeypatch):
    here = copy_of(finished, tmp_path)
    told, begun = [], threading.Event()

    def say(text):
        told.append(text)
        begun.set()

    monkeypatch.setattr("gradbench.support.locks.say", say)
    with file_lock(here / "run/.gradbench-lock", "writes"):
        second = threading.Thread(target=write, args=(here, told))
        second.start()
        assert begun.wait(60)
        assert told == [f"waiting for another process that writes its results to {here / 'run'}"]
    second.join(60)
    assert told[1:] == ["written"]
    assert not (here / "run/.gradbench-lock").exists()


def write(here, told):
    with claim.locked(here / "run"):
        told.append("written")
