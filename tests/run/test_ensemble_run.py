"""Runs with detectors that compare the networks of a run, and with dropout."""

import json

import pytest
from _runs import TINY, copy_of, gradbench, kept, one_sentence, rows, steps

pytestmark = pytest.mark.slow

RUN = (
    *(*TINY, "levels=[5]", "backbone=densenet_bc_100_12", "backbone.depth=10", "limit=100"),
    *("backbone.growth=4", "+backbone.dropout=0.2", "controls.memorisation=true"),
    "detectors=[msp,ensemble_variance,ensemble_entropy,{use: mc_dropout, passes: 4}]",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble")
    ran = gradbench("run", *RUN, "seeds=[0,1]", cwd=folder)
    assert ran.code == 0, ran.err
    assert "ensemble_variance compares several networks" in ran.err
    return folder


def values(folder, method, **wanted):
    found = rows(folder, method=method, role="main", metric="auroc", fold="all", **wanted)
    return {row["train_seed"]: row["value"] for row in found if row["challenge"] != "mean:all"}


def test_the_rows_of_every_network_are_alike_and_say_so(finished):
    for name in ("ensemble_variance", "ensemble_entropy"):
        of_networks = values(finished, name)
        assert of_networks.keys() == {"0", "1"}
        assert of_networks["0"] == of_networks["1"]
        notes = [row["note"] for row in rows(finished, method=name, metric="auroc", role="main")]
        assert sum("one score for seeds 0, 1 together" in note for note in notes) >= 2
    assert len(set(values(finished, "msp").values())) == 2
    assert len(set(values(finished, "mc_dropout").values())) == 2


def test_passes_are_those_of_all_networks(finished):
    lines = (finished / "run/table.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    passes = {row[1]: row[3] for row in cells if len(row) == 8 and "forward" in row[3]}
    assert passes == {
        "msp": "1 forward, 0 backward",
        "ensemble_variance": "2 forward, 0 backward",
        "ensemble_entropy": "2 forward, 0 backward",
        "mc_dropout": "4 forward, 0 backward",
    }


def test_the_folder_of_the_model_holds_the_others(finished):
    model = json.loads((finished / "run/model/s0/model.json").read_text())
    assert [entry["name"] for entry in model["detectors"]] == ["msp", "mc_dropout"]
    assert all(entry["threshold"] for entry in model["detectors"])


def test_a_plan_finds_everything_and_another_network_is_another_ensemble(finished, tmp_path):
    here = copy_of(finished, tmp_path)
    ran = gradbench("plan", *RUN, "seeds=[0,1]", cwd=here)
    assert ran.code == 0, ran.err
    assert "0 of 1 there" not in ran.out
    assert "1 of 1 there" in ran.out
    more = gradbench("plan", *RUN, "seeds=[0,1,2]", cwd=here)
    lines = [line for line in more.out.splitlines() if "outputs" in line]
    assert lines
    assert all("0 of 1 there" in line for line in lines)
    before = kept(here)
    again = gradbench("run", *RUN, "seeds=[1,0]", "out=other", cwd=here)
    assert again.code == 0, again.err
    made = steps(kept(here) - before)
    assert "network" not in made
    assert made["outputs"] > 0  # the order of the networks stands in the key


def test_one_network_alone_is_refused_at_once(tmp_path):
    told = one_sentence(gradbench("run", *RUN, cwd=tmp_path))
    assert told.startswith("detectors: ensemble_variance, ensemble_entropy: members are the logits")
    assert "'seeds=[0,1,2]'" in told


def test_a_network_without_dropout_is_refused_before_it_is_trained(tmp_path):
    for command in ("plan", "run"):
        ran = gradbench(command, *TINY, "detectors=[msp,mc_dropout]", cwd=tmp_path)
        assert ran.code == 2
        assert "SmallCNN has no dropout (no module like torch.nn.Dropout" in ran.err
    assert not kept(tmp_path)
