"""`gradbench bench attacks`: its numbers, and the command."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from _runs import gradbench, one_sentence
from _trained import digits, trained

from gradbench.backbones.checkpoint import save_checkpoint
from gradbench.bench import against_foolbox, attacks, real
from gradbench.bench.against_foolbox import ATTACKS, effect, pair
from gradbench.bench.contenders import Unavailable
from gradbench.bench.timing import ratio
from gradbench.challenges.base import CleanBatch

SMALL = (
    *("bench", "attacks", "--backbone", "small_cnn", "--image-size", "8", "--images", "6"),
    *("--rounds", "1", "--threads", "1", "--out", "out"),
)
NAME = "attacks-small_cnn-w16-b6-8px-cpu-1thread-random_weights-tiles_images"


def clean(count: int = 40):
    images = digits(count)
    return CleanBatch.from_pixels(
        images.images, images.labels, images.sources, "cpu", quantise=False
    )


def read(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as stream:
        return {(r["attack"], r["contender"]): r for r in csv.DictReader(stream)}


@pytest.mark.parametrize("name", ATTACKS)
def test_both_sides_have_the_same_budget(name, monkeypatch):
    pytest.importorskip("foolbox")
    monkeypatch.setattr(against_foolbox, "EPSILON", 0.1)
    monkeypatch.setattr(against_foolbox, "STEP", 0.025)
    both = pair(name, trained(), clean())
    own, other = (effect(trained(), clean(), side()) for side in (both.own, both.other))
    assert own.success > 0.1
    assert abs(own.success - other.success) <= 0.1
    # with searched c the steps differ; ours may come nearer
    assert 0.8 < own.l2 / other.l2 < 1.05


def test_without_foolbox_the_reason_stands_in_the_table(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "foolbox", None)
    with pytest.raises(Unavailable, match="foolbox is not installed"):
        pair("fgsm", trained(), clean(2))


def test_the_effect_counts_images_that_were_right_before():
    batch = clean(30)
    with torch.no_grad():
        right = trained()(batch.grey / 255).argmax(1) == batch.labels
    assert 0 < (~right).sum() < 10
    unchanged = effect(trained(), batch, batch.grey / 255)
    assert (unchanged.success, unchanged.l2) == (0, None)
    moved = batch.grey / 255
    moved[:] = moved[:1]  # all look like the first image
    found = effect(trained(), batch, moved)
    expected = right & (batch.labels != trained()(moved[:1]).argmax(1))
    assert torch.equal(found.succeeded, expected)
    assert found.success == pytest.approx(float(expected.sum() / right.sum()))
    length = (moved - batch.grey / 255).flatten(1).norm(dim=1)[expected].mean()
    assert found.l2 == pytest.approx(float(length))


def test_speed_is_their_time_beside_ours():
    done = effect(trained(), clean(), torch.zeros(40, 1, 8, 8))
    one = attacks.Compared("bim", ([0.1, 0.1], [0.2, 0.4]), ratio([0.2, 0.4], [0.1, 0.1]),
                           (done, done), 1.0)  # fmt: skip
    own, other = attacks._rows(one)
    assert (own["speed"], own["speed_low"], own["speed_high"]) == pytest.approx((3, 2, 4))
    assert own["images_per_second"] == pytest.approx(10)
    assert own["l2_ratio"] == pytest.approx(1)
    assert "speed" not in other
    assert "3.00" in attacks._table([one], ATTACKS)


def test_the_command_without_data_writes_a_row_for_each_side(tmp_path):
    pytest.importorskip("foolbox")
    ran = gradbench(*SMALL, "--attacks", "fgsm,cw_fixed", cwd=tmp_path)
    assert ran.code == 0, ran.err
    rows = read(tmp_path / "out" / f"{NAME}-only_fgsm_cw_fixed.csv")
    assert list(rows) == [(a, c) for a in ("fgsm", "cw_fixed") for c in ("gradbench", "foolbox")]
    own = rows["fgsm", "gradbench"]
    assert float(own["speed"]) > 0
    assert own["source"] == "tiles/all"
    assert own["weights"] == "random"
    assert own["images"] == "6"
    assert own["foolbox"] not in ("", "absent")
    assert own["command"].startswith("gradbench bench attacks --backbone small_cnn")
    assert "cw_fixed" in ran.out
    assert "written to out/" in ran.out


def test_trained_weights_and_images_of_the_user(tmp_path):
    pytest.importorskip("foolbox")
    images = digits(30)
    folder = tmp_path / "data" / "cifar10"
    folder.mkdir(parents=True)
    colour = np.repeat(images.images.transpose(0, 2, 3, 1), 3, 3)
    np.savez(folder / "test.npz", images=colour.repeat(4, 1).repeat(4, 2), labels=images.labels)
    from gradbench.backbones.small_cnn import SmallCNN

    torch.manual_seed(0)
    save_checkpoint(tmp_path / "f.safetensors", SmallCNN(10, 3, 4), {})
    words = ("--width", "4", "--dataset", "cifar10", "--data", "data", "--checkpoint",
             "f.safetensors", "--attacks", "fgsm", "--images", "9")  # fmt: skip
    ran = gradbench(*SMALL[:4], *SMALL[8:], *words, cwd=tmp_path)
    assert ran.code == 0, ran.err
    (path,) = (tmp_path / "out").glob("*.csv")
    assert path.name == (
        "attacks-small_cnn-w4-b9-32px-cpu-1thread-f_weights-cifar10_images-only_fgsm.csv"
    )
    assert read(path)["fgsm", "gradbench"]["source"] == "cifar10/test"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--attacks", "fgms"), "no attack to compare named 'fgms': did you mean fgsm"),
        (("--data", "here"), "name one of them with --dataset"),
        (("--rounds", "0"), "0 is no whole number of at least 1"),
        (("--image-size", "900"), "--image-size 900: at most 427"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, words, text):
    assert text in one_sentence(gradbench(*SMALL, *words, cwd=tmp_path))


def test_tiles_are_the_same_every_time_and_of_every_class():
    first, second = real.tiles(20, 16), real.tiles(20, 16)
    assert first.fingerprint == second.fingerprint
    assert first.shape == (3, 16, 16)
    assert len(set(first.labels)) == 10
    assert len({digest.tobytes() for digest in first.images}) == 20
