"""Which images of an attack are kept, what they stand against, and what the rows say of it."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from _dummies import images
from _runs import TINY, gradbench, one_sentence

from gradbench.challenges.attacks.projected import FGSM
from gradbench.challenges.produce import AttackOutcome
from gradbench.data.imageset import ImageSet, join
from gradbench.outputs.extract import OutputValues
from gradbench.run.challenge_images import attack_policy
from gradbench.run.context import ImagesWithOutputs
from gradbench.run.experiment import Cell
from gradbench.run.results import attack_numbers

WORDS = (*TINY, "detectors=[msp,gradient_logistic]", "controls.random_split=true")
ATTACKS = """challenges=[
    {use: fgsm, name: all, epsilon: 0.2},
    {use: fgsm, name: kept, epsilon: 0.2, keep: successful},
    {use: fgsm, name: noisy, epsilon: 0.2, keep: successful, noisy_negatives: true, noise: 0.3},
    {use: fgsm, name: doubled, epsilon: 0.2, noisy_negatives: true},
    {use: fgsm, name: weak, epsilon: 0.001, keep: successful}
]""".replace("\n", "")


class Ran:
    """A finished run, read back."""

    def __init__(self, folder: Path, *words: str, out: str = "run"):
        ran = gradbench("run", *WORDS, *words, f"out={out}", cwd=folder)
        assert ran.code == 0, ran.err
        with open(folder / out / "results.csv", newline="", encoding="utf-8") as stream:
            self.rows = list(csv.DictReader(stream))
        self.table = (folder / out / "table.md").read_text()
        self.err = ran.err

    def auroc(self, challenge: str, method: str = "msp", split: str = "grouped"):
        wanted = {"metric": "auroc", "fold": "all", "challenge": challenge, "method": method}
        (row,) = (r for r in self.rows if all(r[k] == v for k, v in wanted.items())
                  and r["protocol"] == split)  # fmt: skip
        return row

    def did(self, challenge: str) -> dict[str, float]:
        names = ("attempted", "correct", "successful", "attack_success", "l2", "linf",
                 "l2_successful", "linf_successful")  # fmt: skip
        return {
            r["metric"]: float(r["value"])
            for r in self.rows
            if r["challenge"] == challenge and r["metric"] in names
        }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sides")


@pytest.fixture(scope="module")
def run(folder):
    return Ran(folder, ATTACKS)


def counts(row) -> tuple[int, int]:
    return int(row["n_normal"]), int(row["n_abnormal"])


def test_all_images_stand_against_all_clean_ones(run):
    assert counts(run.auroc("all")) == (200, 200)
    assert "kept" not in run.auroc("all")["note"]


def test_successful_images_stand_against_their_sources_alone(run):
    did = run.did("kept")
    assert did["attempted"] == 200
    assert 100 < did["successful"] < did["correct"] < 200
    assert did["attack_success"] == pytest.approx(100 * did["successful"] / did["correct"])
    kept = int(did["successful"])
    assert counts(run.auroc("kept")) == (kept, kept)
    note = run.auroc("kept")["note"]
    assert f"{kept} images that f errs on only after the attack are kept" in note
    assert f"of {did['correct']:.0f} classified correctly and 200 attempted" in note
    assert run.auroc("kept")["value"] != run.auroc("all")["value"]


def test_noisy_copies_stand_beside_the_clean_ones_two_to_one(run):
    kept = counts(run.auroc("kept"))[1]
    normal, abnormal = counts(run.auroc("noisy"))
    assert normal == 2 * abnormal
    assert 0.5 * kept < abnormal < kept  # f errs on some of the noisy copies
    assert "and is right on their noisy copies" in run.auroc("noisy")["note"]
    assert "deviation 0.3 in normalised space" in run.auroc("noisy")["note"]
    assert counts(run.auroc("doubled")) == (400, 200)


def test_twins_stay_together_and_the_random_split_beside_it_has_the_same_images(run):
    for name in ("kept", "noisy"):
        grouped = run.auroc(name, "gradient_logistic")
        random = run.auroc(name, "gradient_logistic", "random")
        assert counts(grouped) == counts(random)
        assert grouped["value"] != random["value"]


def test_too_few_images_are_a_hole_with_the_reason(run):
    (hole,) = (r for r in run.rows if r["challenge"] == "weak" and "not measured" in r["note"])
    reason = "too few images for the folds"
    assert reason in hole["note"]
    assert "are kept, of" in hole["note"]
    assert f"weak: not measured: {reason}" in run.err
    assert run.did("weak")["attempted"] == 200


def test_the_table_shows_the_counts_and_sizes(run):
    header, *lines = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in run.table.partition("## Attacks")[2].partition("\n## ")[0].splitlines()
        if line.startswith("|") and "---" not in line
    ]
    (kept,) = (dict(zip(header, line)) for line in lines if line[0] == "kept")
    did = run.did("kept")
    for column, metric in (("attempted", "attempted"), ("correct", "correct"),
                           ("successful", "successful")):  # fmt: skip
        assert kept[column] == f"{did[metric]:.0f}"
    assert float(kept["L2, successful"]) == pytest.approx(did["l2_successful"], rel=0.01)
    assert float(kept["L∞, successful"]) == pytest.approx(51 / 255, rel=0.01)


def test_keeping_fewer_makes_no_image_again_and_the_run_goes_before_the_attack(run, folder):
    words = ("challenge.keep=successful", "challenge.noisy_negatives=false")
    other = Ran(folder, ATTACKS, *words, out="other")
    for name in ("all", "noisy", "doubled"):
        assert counts(other.auroc(name)) == counts(run.auroc("kept"))
        assert other.auroc(name)["value"] == run.auroc("kept")["value"]
    steps = json.loads((folder / "other/run.json").read_text())["time"]
    assert steps["products_made"] == 0


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("challenge.keep=foo", "challenge.keep=foo: write all, successful or null"),
        ("challenge.noisy_negatives=3", "challenge.noisy_negatives=3: write true, false or null"),
    ],
)
def test_bad_settings_of_the_run_are_refused(tmp_path, word, text):
    assert text in one_sentence(gradbench("run", *WORDS, ATTACKS, word, cwd=tmp_path))


@pytest.mark.parametrize(
    ("keep", "noisy", "expected"),
    [
        (None, None, ("successful", True)),
        ("all", None, ("all", True)),
        (None, False, ("successful", False)),
    ],
)
def test_what_is_kept_is_said_by_the_run_or_else_by_the_attack(keep, noisy, expected):
    settings = SimpleNamespace(challenge=SimpleNamespace(keep=keep, noisy_negatives=noisy))
    cell = Cell("fgsm", FGSM(keep="successful", noisy_negatives=True))
    assert attack_policy(SimpleNamespace(settings=settings), cell) == expected


def test_a_network_of_one_class_is_refused_before_it_is_trained(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (120, 8, 8, 1), np.uint8)
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", images=pixels, labels=np.zeros(120, np.int64))
    words = ("dataset=arrays", "dataset.path=.", "dataset.holdout=20", "backbone=small_cnn",
             "challenges=[pgd]", "data.download=false", "store=store", "out=run")  # fmt: skip
    ran = gradbench("run", *words, cwd=tmp_path)
    assert "pgd needs at least two classes" in one_sentence(ran)
    assert "training" not in ran.err


def test_joined_sets_read_both():
    first, second = images(7), images(5, seed=1, name="other")
    both = join(first, second)
    assert len(both) == 12
    pixels = np.concatenate([first.images, second.images])
    rows = np.array([11, 0, 6, 7])
    assert np.array_equal(both.images[rows], pixels[rows])
    assert np.array_equal(both.images[slice(None)], pixels)
    assert both.sources.tolist() == [*first.sources, *second.sources]
    alike = ImageSet("toy", "test", pixels, both.labels, both.sources)
    assert both.fingerprint == alike.fingerprint


def test_joined_outputs_stay_in_line():
    first, second = (
        ImagesWithOutputs(images(n, seed=n), OutputValues({"logits": torch.full((n, 3), float(n))}))
        for n in (4, 6)
    )
    both = first.join(second)
    assert both.outputs["logits"][:, 0].tolist() == [4.0] * 4 + [6.0] * 6


def test_an_attack_that_never_succeeds_has_no_size_of_successful_images():
    nothing = np.zeros(10, bool)
    attack = AttackOutcome(np.ones(10, bool), nothing, np.full(10, 0.5), np.full(10, 0.1))
    found = {one["metric"]: one["value"] for one in attack_numbers(attack)}
    assert found["successful"] == found["attack_success"] == 0
    assert found["correct"] == 10
    assert found["l2"] == 0.5
    assert "l2_successful" not in found
    none_right = attack_numbers(replace(attack, correct=nothing))
    assert np.isnan(next(r["value"] for r in none_right if r["metric"] == "attack_success"))
