"""Whose files a folder holds: those of the same run are replaced, others never."""

import json
import os

import pytest
from _made_runs import measured, write_run

from gradbench.errors import GradbenchError
from gradbench.report import claim
from gradbench.report.finished_run import PARTIAL, list_files, seal, write_record

CONFIG = {
    "name": "mine",
    "backbone": {"name": "resnet18", "width": 32, "description": "a net"},
    "dataset": {"name": "cifar10", "mean": [0.5]},
    "challenges": ["svhn", {"use": "fgsm", "epsilon": 0.1}],
    "detectors": ["msp"],
    "level": None,
    "levels": [1, 3],
    "seed": 0,
    "seeds": None,
    "limit": None,
    "training": {"epochs": 20},
    "evaluation": {"seed": 0},
    "challenge": {"seed": 0},
    "controls": {"identity": True},
    "out": "run",
    "data": {"root": "data"},
}


def changed(**more):
    return {**CONFIG, **more}


@pytest.fixture
def run(tmp_path):
    folder = write_run(tmp_path / "run", [measured("svhn", "msp", 80.0)], name="mine")
    told = json.loads((folder / "run.json").read_text())
    write_record(folder, told | {"config": CONFIG})
    return folder


def refused(folder, config) -> str:
    with pytest.raises(GradbenchError) as told:
        claim.check_claim(folder, config)
    return str(told.value)


@pytest.mark.parametrize(
    ("more", "dropped"),
    [
        ({}, []),
        ({"detectors": ["msp", "energy"], "levels": None, "challenges": CONFIG["challenges"]}, []),
        ({"seeds": [0, 1]}, []),
        ({"out": "other", "data": {"root": "x"}, "device": "cuda", "controls": {}}, []),
        ({"backbone": CONFIG["backbone"] | {"description": "words"}}, []),
        ({"new": 1, "training": {"epochs": 20, "more": 1}}, []),  # of a later version
        ({"detectors": "energy", "levels": [1]}, ["detectors msp", "levels 3"]),
        ({"challenges": ["svhn"]}, ['challenges {"epsilon":0.1,"use":"fgsm"}']),
    ],
)
def test_the_same_run_may_be_replaced(run, more, dropped):
    assert claim.check_claim(run, changed(**more)) == dropped


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"name": "yours"}, "the run mine, and this run, yours, is another one (name=mine there"),
        ({"training": {"epochs": 5}}, "training.epochs=20 there and 5 here"),
        ({"limit": 200}, "limit=null there and 200 here"),
        ({"backbone": {"name": "resnet18", "width": 64}}, "backbone.width=32 there and 64 here"),
        ({"backbone": CONFIG["backbone"] | {"depth": 3}}, "backbone.depth=null there and 3 here"),
        ({"dataset": {"name": "cifar10", "mean": [0.4]}}, "dataset.mean=[0.5] there and [0.4]"),
        ({"seed": 1}, "seeds 0 there and not here"),
        ({"seeds": [1, 2]}, "seeds 0 there and not here"),
    ],
)
def test_another_configuration_is_refused_naming_both(run, more, said):
    sentence = refused(run, changed(**more))
    assert sentence.startswith(f"{run} holds the run mine")
    assert said in sentence
    assert sentence.endswith(f"for example out={run}-2")
    assert claim.unclaimed_folder(run, changed(**more)) == run.with_name("run-2")
    assert claim.unclaimed_folder(run, CONFIG) == run


@pytest.mark.parametrize("here", [".", ".."])
def test_the_folder_of_the_moment_is_refused_like_others(run, monkeypatch, here):
    (run / "inside").mkdir()
    monkeypatch.chdir(run if here == "." else run / "inside")
    said = refused(type(run)(here), changed(limit=300))
    assert f"for example out={run}-2" in said


def test_files_that_no_run_wrote_are_refused(run, tmp_path):
    (run / "figures").mkdir()
    (run / "figures/mine.png").write_text("not in the way")
    claim.check_claim(run, CONFIG)
    (run / "figures/roc.png").write_text("in the way")
    assert "run holds figures/roc.png, of which no run.json of gradbench" in refused(run, CONFIG)
    seal(run)
    claim.check_claim(run, CONFIG)
    own = tmp_path / "own"
    own.mkdir()
    for name in ("model/mine.pt", "figures/fig1.png", "notes.csv", "scores.csv"):
        (own / name).parent.mkdir(exist_ok=True)
        (own / name).write_text("mine")
    claim.check_claim(own, CONFIG)
    for name in ("results.csv", "model/s0/network.safetensors", "figures/scores_a.png"):
        (own / name).parent.mkdir(exist_ok=True)
        (own / name).write_text("mine")
        assert f"own holds {name}, of which no run.json" in refused(own, CONFIG)
        (own / name).unlink()
    for name in ("figures", "model"):
        (tmp_path / name / name).parent.mkdir()
        (tmp_path / name / name).write_text("a file in the place of a folder")
        assert f"holds {name}, of which no run.json" in refused(tmp_path / name, CONFIG)


@pytest.mark.parametrize("text", ["", "null", "{}", "{", '{"a": "\\ud800"}'])
def test_a_run_json_that_is_none_is_not_replaced(run, text):
    (run / "run.json").write_text(text)
    assert "another out=DIR" in refused(run, CONFIG)


def put(run, **files):
    """Place files as a run does; `roc__png` names figures/roc.png."""
    part = run / PARTIAL
    for name, text in files.items():
        path = part / name.replace("__", ".").replace("_", "/", 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    told = json.loads((run / "run.json").read_text())
    names = [p.relative_to(part).as_posix() for p in part.rglob("*.*")]
    write_record(part, told | {"files": list_files(part, names)})


def test_own_files_that_are_drawn_no_more_go_and_all_others_stay(run):
    put(run, figures_roc__png="1", figures_levels__png="1", results__csv="a\n1\n")
    claim.move_into_place(run)
    (run / "figures/levels.png").write_text("edited")
    (run / "figures/mine.png").write_text("mine")
    assert not (run / PARTIAL).exists()
    put(run, figures_scores_a__png="2", results__csv="a\n2\n")
    claim.move_into_place(run)
    assert (run / "results.csv").read_text() == "a\n2\n"
    found = {path.name for path in (run / "figures").iterdir()}
    assert found == {"levels.png", "mine.png", "scores_a.png"}


def test_a_kill_while_files_are_moved_loses_nothing(run, monkeypatch):
    put(run, figures_roc__png="1", results__csv="a\n1\n", table__md="t")
    real, count = os.replace, []

    def dies(*args):
        count.append(args)
        if len(count) > 1:
            raise KeyboardInterrupt
        real(*args)

    with monkeypatch.context() as context:
        context.setattr(os, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            claim.move_into_place(run)
    claim.check_claim(run, CONFIG)  # what was moved is known
    claim.move_into_place(run)
    assert (run / "table.md").read_text() == "t"
    assert (run / "results.csv").read_text() == "a\n1\n"
    assert not (run / PARTIAL).exists()


def test_a_sweep_replaces_its_own_rows_alone(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "part/results.csv").write_text("a\n1\n")
    sweep, jobs = tmp_path / "sweep", ["level=1", "level=3"]
    sweep.mkdir()
    claim.move_sweep_into_place(sweep, tmp_path / "part", CONFIG, jobs)
    assert json.loads((sweep / "sweep.json").read_text())["jobs"] == jobs
    claim.check_sweep_claim(sweep, changed(detectors=["energy"], seed=5))
    with pytest.raises(GradbenchError, match=r"holds the sweep mine.*training\.epochs=20 there"):
        claim.check_sweep_claim(sweep, changed(training={"epochs": 5}))
    (sweep / "levels.png").write_text("mine")
    with pytest.raises(GradbenchError, match=r"levels\.png, of which no sweep\.json"):
        claim.check_sweep_claim(sweep, CONFIG)
    (sweep / "sweep.json").write_text("null")
    with pytest.raises(GradbenchError, match=r"sweep\.json is damaged"):
        claim.check_sweep_claim(sweep, CONFIG)
    assert "holds results.csv, of which no run.json" in refused(sweep, CONFIG)
