"""What scripts/keep.py keeps of a run: rows, files, and a command that gives the same settings."""

import importlib.util
import json
from pathlib import Path

import pytest
from _made_runs import measured, write_run

from gradbench.config import compose, expand
from gradbench.report.finished_run import FinishedRun
from gradbench.run.rows import read_csv

ROOT = Path(__file__).resolve().parents[1]
KEPT = sorted(path.parent.name for path in (ROOT / "results").glob("*/run.json"))
SAME = (
    *("seed", "seeds", "limit", "level", "levels", "challenges", "detectors", "training"),
    *("controls", "evaluation", "challenge", "name"),
)


@pytest.fixture(scope="module")
def keep():
    spec = importlib.util.spec_from_file_location("keep", ROOT / "scripts" / "keep.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_run_is_kept_whole(keep, tmp_path):
    from PIL import Image

    run = write_run(tmp_path / "run", [measured("svhn", "msp", 91.0)])
    config = compose(["experiment=ood_cifar10_far", "seed=3", "backbone.width=32"])
    told = json.loads((run / "run.json").read_text())
    told["config"] = config
    (run / "run.json").write_text(json.dumps(told))
    (run / "table.md").write_text("# a table\n")
    (run / "figures").mkdir()
    Image.radial_gradient("L").convert("RGB").save(run / "figures" / "levels.png")
    kept = keep.keep_run(run, "mine", ["figures/levels.png"], tmp_path / "results")
    assert read_csv(kept / "results.csv.gz").equals(read_csv(run / "results.csv"))
    found = FinishedRun(kept)
    assert {*found.frame["method"]} == {"msp"}
    assert found.text("table.md") == "# a table\n"
    with Image.open(kept / "figures" / "levels.png") as picture:
        assert picture.mode == "P"
    again = compose(["experiment=results_mine"], [tmp_path / "results" / "commands"])
    assert again["backbone"] == config["backbone"]
    assert all(again[key] == config[key] for key in SAME if key != "name")


@pytest.mark.parametrize("name", KEPT)
def test_the_command_of_a_kept_run_gives_its_settings(name):
    config = json.loads((ROOT / "results" / name / "run.json").read_text())["config"]
    again = compose([f"experiment=results_{name}"], [ROOT / "results" / "commands"])
    for key in SAME:
        then, now = config[key], again[key]
        if isinstance(then, dict):  # without settings that there were not yet
            now = {setting: now[setting] for setting in then}
        if key == "detectors" and now != then:  # a suite has more members today
            rows = read_csv(ROOT / "results" / name / "results.csv.gz")
            measured = {*rows.query("role == 'main'").method}
            assert measured <= {member for member, _ in expand("detector", now)}
            continue
        assert now == then, key
    for group in ("dataset", "backbone", "protocol"):
        assert again[group]["name"] == config[group]["name"]
    assert again["backbone"].get("width") == config["backbone"].get("width")
    assert again["backbone"]["checkpoint"] == config["backbone"]["checkpoint"]
