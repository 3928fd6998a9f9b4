"""`gradbench bench detectors`: every detector once, their sum, and the outputs that are drawn."""

import csv

import numpy as np
import pytest
import torch
from _runs import gradbench, one_sentence

from gradbench.backbones.backbone import Backbone
from gradbench.backbones.small_cnn import SmallCNN
from gradbench.bench.drawn_outputs import Drawn
from gradbench.bench.real import tiles
from gradbench.methods.energy import Energy
from gradbench.methods.gradient_synthetic import GradientSynthetic
from gradbench.methods.rmds import RMDS

SMALL = ("bench", "detectors", "--backbone", "small_cnn", "--image-size", "8", "--threads", "1",
         "--images", "60", "--bank", "90", "--hold-out", "80", "--batch", "16",
         "--out", ".")  # fmt: skip
SOME = ("--detectors", "energy,gradient_logistic,rmds_hold_out")


def test_the_rows_are_of_every_detector_and_of_their_sum(tmp_path):
    ran = gradbench(*SMALL, *SOME, "--rounds", "2", cwd=tmp_path)
    assert ran.code == 0, ran.err
    (path,) = tmp_path.glob("detectors-small_cnn-w16-60images-cpu-1thread-only_*.csv")
    with open(path, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(r["detector"], r["fits"], r["supervision"]) for r in rows] == [
        ("energy", "1", "none"),
        ("gradient_logistic", "5", "training"),
        ("rmds_hold_out", "1", "none"),
        ("all of them", "7", ""),
    ]
    for row in rows:
        low, middle, high = (float(row[f"seconds{end}"]) for end in ("_low", "", "_high"))
        assert 0 < low <= middle <= high
        assert (row["images"], row["bank"], row["hold_out"], row["folds"]) == (
            "60",
            "90",
            "80",
            "5",
        )
        assert row["threads"] == "1"
        assert row["processor"]
        assert row["command"].startswith("gradbench bench detectors --backbone small_cnn")
    each, total = [float(r["seconds_low"]) for r in rows[:-1]], float(rows[-1]["seconds_low"])
    assert total >= 0.999 * sum(each)
    assert ran.out.splitlines()[1].split()[0] == "detector"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--detectors", "odin"), "no detector that does not perturb images named 'odin'"),
        (("--detectors", "enery"), "did you mean energy"),
        (("--images", "0"), "0 is no whole number of at least 1"),
    ],
)
def test_bad_input_is_one_sentence(words, text, tmp_path):
    assert text in one_sentence(gradbench(*SMALL, *words, cwd=tmp_path))


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    torch.manual_seed(0)
    f = Backbone(SmallCNN(10, 3, 8), [0.5] * 3, [0.25] * 3, tuple("0123456789"), (3, 8, 8)).eval()
    synthetic = GradientSynthetic()
    return Drawn(f, tiles(32, 8), (400, 300, 200), [Energy(), synthetic, RMDS()])


def test_outputs_are_drawn_around_those_that_were_read(drawn):
    normal, abnormal = drawn.sides(Energy())
    assert set(normal) == {"logits"}
    assert normal["logits"].shape == abnormal["logits"].shape == (400, 10)
    assert normal["logits"].dtype == torch.float32
    bank = drawn.bank(RMDS())
    assert set(bank) == {"features", "labels"}
    assert all(len(values) == 300 for values in bank.values())
    assert set(bank["labels"].tolist()) == set(range(10))


def test_own_challenges_have_as_many_images_each_as_there_are_clean_ones(drawn):
    detector = GradientSynthetic()
    halves = drawn.own(detector)
    for half in halves:
        assert int((~half.abnormal).sum()) == 100
        assert int(half.abnormal.sum()) == 100 * len(detector.synthetic)
    (name,) = halves[0].outputs
    assert (halves[0].outputs[name] > 0).all()  # squared norms
    assert not np.allclose(halves[0].outputs[name][:100], halves[1].outputs[name][:100])


def test_what_is_drawn_is_always_the_same(drawn):
    again = drawn._of(50, 1)
    assert all(torch.equal(values, drawn._of(50, 1)[name]) for name, values in again.items())
