"""A whole run with the detectors that perturb images: rows, kept passes, plan, interruption."""

import csv
import json
import shutil
from pathlib import Path
from unittest.mock import patch

import pytest
from _runs import TINY, copy_of, gradbench, kept, same_results, steps

from gradbench.config import compose
from gradbench.outputs.perturbed import PerturbedPass
from gradbench.run.experiment import build_experiment
from gradbench.run.plan import plan
from gradbench.store import Store

pytestmark = pytest.mark.slow

SUPERVISED = ("odin", "mahalanobis_p", "mahalanobis_pfe")
NAMES = (*SUPERVISED, "odin_fixed")
DETECTORS = (
    "detectors=[{use: odin, temperatures: [1, 1000], magnitudes: [0.002, 0.01], drawn: 20},"
    "{use: mahalanobis_p, magnitudes: [0.002, 0.01], drawn: 20},"
    "{use: mahalanobis_pfe, magnitudes: [0.002, 0.01], drawn: 20}, odin_fixed]"
)
WORDS = (
    *(*TINY, DETECTORS, "controls.identity=false", "model.hold_out=0", "limit=60"),
    "protocol=icip2020",
)
"""One fold, for fits that try every step are slow."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("perturbing")
    planned = passes(folder)
    ran = gradbench("run", *WORDS, cwd=folder)
    assert ran.code == 0, ran.err
    (folder / "planned.json").write_text(json.dumps(planned))
    return folder


def passes(folder: Path, *words: str) -> dict[str, list[float]]:
    """Return parts, present and seconds of the planned passes by detector."""
    lines = plan(build_experiment(compose([*WORDS, *words])), Store(folder / "store"))
    return {line.what.partition(",")[0]: [line.parts, line.present, line.seconds]
            for line in lines if line.step == "perturbed"}  # fmt: skip


def rows(folder: Path, run: str = "run") -> list[dict[str, str]]:
    with open(folder / run / "results.csv", newline="", encoding="utf-8") as stream:
        return [r for r in csv.DictReader(stream) if r["metric"] == "auroc" and r["fold"] == "all"]


def products(folder: Path, step: str) -> list[tuple[Path, dict]]:
    return [(p, about) for p, about in Store(folder / "store").products() if about["step"] == step]


def remove(folder: Path, *names: str) -> None:
    for name in names:
        shutil.rmtree(folder / "store" / name)


def test_every_detector_has_its_row(finished):
    found = {r["method"]: r for r in rows(finished) if r["challenge"] == "gaussian_noise"}
    assert set(found) == set(NAMES)
    for row in found.values():
        assert 40 < float(row["value"]) <= 100
        assert float(row["lo"]) <= float(row["value"]) <= float(row["hi"])
    assert {name: row["supervision"] for name, row in found.items()} == {
        "odin": "tuning",
        "odin_fixed": "none",
        "mahalanobis_p": "tuning",
        "mahalanobis_pfe": "training",
    }


def test_the_costs_tell_the_passes_of_every_detector(finished):
    with open(finished / "run" / "costs.csv", newline="", encoding="utf-8") as stream:
        told = {r["what"]: r for r in csv.DictReader(stream) if r["step"] == "scores"}
    counts = {n: (int(told[n]["forward_passes"]), int(told[n]["backward_passes"])) for n in NAMES}
    assert counts["odin_fixed"] == (2, 1)
    assert counts["odin"] == (2, 1)
    assert counts["mahalanobis_p"] == (2, 1)
    assert counts["mahalanobis_pfe"][0] > 2


def test_the_costs_tell_the_speed_with_passes_over_perturbed_images(finished):
    lines = (finished / "run" / "costs.md").read_text().splitlines()
    for name in NAMES:
        (line,) = [one for one in lines if one.startswith(f"| {name} ")]
        scoring, whole = (int(cell.replace(",", "")) for cell in line.split("|")[4:6])
        assert 0 < whole <= scoring
    for _, manifest in products(finished, "passes"):
        assert manifest["about"]["images"] == 60
        assert manifest["about"]["pass_seconds"] > 0
    timed = [manifest["config"] for _, manifest in products(finished, "passes")]
    layers = {len(config["perturbed"]) for config in timed if "perturbed" in config}
    assert layers == {1, 3}  # logits or the last layer; every layer


def test_a_second_run_computes_nothing(finished):
    before = kept(finished)
    ran = gradbench("run", *WORDS, "out=again", cwd=finished)
    assert ran.code == 0, ran.err
    assert kept(finished) == before
    assert rows(finished, "again") == rows(finished)


def test_the_plan_lists_the_cases_of_every_detector_that_perturbs(finished):
    before = json.loads((finished / "planned.json").read_text())
    assert set(before) == set(NAMES)
    for parts, present, seconds in before.values():
        assert present == 0 < parts
        assert seconds > 0
    assert before["odin_fixed"][2] < before["odin"][2]  # which tries more steps


def test_afterwards_the_plan_finds_them_all(finished):
    for parts, present, seconds in passes(finished).values():
        assert present == parts > 0
        assert seconds == 0


def test_the_plan_finds_what_an_interrupted_run_left(finished, tmp_path):
    here = copy_of(finished, tmp_path)
    for folder, manifest in products(here, "scores"):
        if manifest["about"]["detector"] == "odin":
            shutil.rmtree(folder)
    for name, (parts, present, seconds) in passes(here).items():
        assert (present < parts, seconds > 0) == (name == "odin", name == "odin")


def test_a_run_interrupted_in_a_pass_ends_in_the_same_rows(finished, tmp_path):
    here = copy_of(finished, tmp_path)
    remove(here, "perturbed", "scores", "measures", "resamples")
    work, calls = PerturbedPass.__call__, []

    def stopped(self, *args):
        calls.append(self.source)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return work(self, *args)

    with patch.object(PerturbedPass, "__call__", stopped):
        assert gradbench("run", *WORDS, cwd=here).code == 130
    assert 0 < len(products(here, "perturbed")) < len(products(finished, "perturbed"))
    ran = gradbench("run", *WORDS, cwd=here)
    assert ran.code == 0, ran.err
    assert same_results(here, finished)
    assert steps(kept(here)) == steps(kept(finished))


def test_transfer_measures_what_was_fitted_on_one_challenge_on_the_other(finished, tmp_path):
    here = copy_of(finished, tmp_path)
    two = f"{DETECTORS.partition(',{use: mahalanobis_pfe')[0]}, odin_fixed]"
    challenges = "challenges=[gaussian_noise,patches]"
    words = (*WORDS, two, challenges, "protocol=transfer", "protocol.folds=3", "out=transfer")
    ran = gradbench("run", *words, cwd=here)
    assert ran.code == 0, ran.err
    found = {(r["challenge"], r["method"]): r["protocol"] for r in rows(here, "transfer")
             if r["challenge"] in ("gaussian_noise", "patches")}  # fmt: skip
    wanted = {(c, "odin_fixed"): "transfer" for c in ("gaussian_noise", "patches")}
    for name in SUPERVISED[:2]:
        for challenge, title in (("gaussian_noise", "gaussian_noise 5"), ("patches", "patches")):
            for other in ("gaussian_noise 5", "patches"):
                wanted[challenge, f"{name}@{other}"] = "grouped" if other == title else "transfer"
    assert found == wanted
    before = kept(here)
    assert gradbench("run", *words, cwd=here).code == 0
    assert kept(here) == before


def test_unsupervised_leaves_out_those_that_choose_a_step_and_names_them(finished, tmp_path):
    here = copy_of(finished, tmp_path)
    ran = gradbench("run", *WORDS, "protocol=unsupervised", "out=alone", cwd=here)
    assert ran.code == 0, ran.err
    assert {r["method"] for r in rows(here, "alone")} == {"odin_fixed"}
    table = (here / "alone" / "table.md").read_text()
    assert all(name in table for name in SUPERVISED)
    fitted = steps(kept(here) - kept(finished))
    assert "perturbed" not in fitted  # both sides were looked at by the first run
