"""Training: it learns, it resumes to the same bits, it refuses what it cannot do."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from _dummies import images, network

from gradbench.backbones import training
from gradbench.backbones.backbone import digest
from gradbench.backbones.recipe import Recipe, random_crop, random_flip
from gradbench.backbones.trained_network import VERSION
from gradbench.backbones.training import estimate_seconds, train
from gradbench.backbones.workers import Worker
from gradbench.errors import GradbenchError
from gradbench.support.text import format_value

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=4, batch=16, lr=0.1, pad=1, flip=True, precision="float32")


def trained(work, recipe=RECIPE, seed=0, count=66):
    backbone = network(seed)
    history = train(backbone, images(count), recipe, seed, work, Worker(CPU))
    return backbone, history


# recipe


def test_onecycle_rises_to_the_largest_rate_and_falls_to_zero():
    recipe = Recipe(lr=0.5)
    assert recipe.learning_rate(0) == 0
    assert recipe.learning_rate(0.15) == pytest.approx(0.25)
    assert recipe.learning_rate(0.3) == pytest.approx(0.5)
    assert recipe.learning_rate(0.65) == pytest.approx(0.25)
    assert recipe.learning_rate(1) == pytest.approx(0)


def test_cosine():
    recipe = Recipe(lr=0.5, schedule="cosine")
    rates = [recipe.learning_rate(done) for done in (0, 1 / 3, 0.5, 1)]
    assert rates == pytest.approx([0.5, 0.375, 0.25, 0])


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"batch": 1}, {"lr": -1.0}, {"pad": -1}, {"schedule": "step"},
     {"precision": "float16"}, {"epochs": "many"}, {"epochs": 2.5}, {"lr": None},
     {"reduced": 1.5}, {"flip": 1}, {"batch": True}],
)  # fmt: skip
def test_a_recipe_out_of_range_is_one_sentence(wrong):
    ((name, value),) = wrong.items()
    section = "dataset.augment" if name in ("pad", "flip") else "training"
    with pytest.raises(GradbenchError, match=f"^{section}.{name}={format_value(value)}: .*write "):
        Recipe(**wrong)


# augmentation


def test_crop_shifts_every_image_as_slicing_does():
    pad, count = 2, 400
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, 5, 6)))
    generator = torch.Generator().manual_seed(7)
    top, left = torch.randint(0, 5, (2, count), generator=torch.Generator().manual_seed(7))
    got = random_crop(pixels, pad, generator)
    assert len(set(zip(top.tolist(), left.tolist()))) == 25
    padded = torch.nn.functional.pad(pixels, (pad, pad, pad, pad))
    expected = torch.stack(
        [image[:, t : t + 5, x : x + 6] for image, t, x in zip(padded, top, left)]
    )
    assert torch.equal(got, expected)


def test_flip_mirrors_about_half_of_the_images_and_leaves_the_others():
    pixels = torch.rand(400, 2, 3, 4)
    flipped = random_flip(pixels, torch.Generator().manual_seed(0))
    same = flipped.eq(pixels).flatten(1).all(1)
    mirrored = flipped.eq(pixels.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 150 < mirrored.sum() < 250


def test_augmented_images_are_floats_in_the_unit_interval():
    pixels = torch.from_numpy(images(8).images)
    draw = torch.Generator().manual_seed(0)
    plain = Recipe(pad=0, flip=False).augment(pixels, draw)
    assert torch.equal(plain, pixels.float() / 255)
    turned = Recipe(pad=2, flip=True).augment(pixels, draw)
    assert turned.dtype == torch.float32
    assert turned.max() <= 1
    assert not torch.equal(turned, plain)
    reduced = Recipe(pad=0, flip=False, reduced=0.5)
    assert torch.equal(reduced.augment(pixels, draw, 0.5), plain)
    small = reduced.augment(pixels, draw, 0.4)
    assert small.shape[2:] == tuple(side * 3 // 4 for side in plain.shape[2:])
    torch.testing.assert_close(small.mean((2, 3)), plain.mean((2, 3)), atol=0.05, rtol=0)


# learning


def test_a_network_of_one_size_refuses_smaller_images(tmp_path):
    class Flat(torch.nn.Sequential):
        """Takes the size of its images alone."""

    flat = Flat(torch.nn.Flatten(), torch.nn.Linear(images(1).images[0].size, 3))
    backbone = network(5)
    backbone.network = flat
    with pytest.raises(GradbenchError, match=r"training.reduced=0.5: Flat takes no images of \d+x"):
        train(backbone, images(8), Recipe(reduced=0.5), 0, tmp_path, Worker(torch.device("cpu")))


def test_it_learns_a_toy_problem(tmp_path):
    recipe = Recipe(epochs=8, batch=16, lr=0.05, pad=0, flip=False, precision="float32")
    backbone, history = trained(tmp_path, recipe, count=120)
    assert not backbone.training
    fresh = images(90, seed=5)
    with torch.inference_mode():
        named = backbone(torch.from_numpy(fresh.images) / 255).argmax(1).numpy()
    assert (named == fresh.labels).mean() > 0.95
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert history["accuracy"][-1] > 0.9
    assert [len(history[name]) for name in ("loss", "accuracy", "seconds")] == [8, 8, 8]


def test_golden_training(tmp_path):
    # if this fails, raise VERSION; rounding differs between machines, hence the tolerance
    assert VERSION == 1
    recipe = Recipe(epochs=2, batch=16, lr=0.02, pad=1, precision="float32")
    state = trained(tmp_path, recipe)[0].network.state_dict()
    bias = [0.112335, 0.212159, -0.178749]
    means = [0.038458, 0.008461, -0.096851, 0.071146]
    assert state["fc.bias"].tolist() == pytest.approx(bias, abs=2e-4)
    assert state["bn1.running_mean"].tolist() == pytest.approx(means, abs=2e-4)


def test_the_optimiser_is_torchs_sgd_with_nesterov_momentum(tmp_path):
    recipe = Recipe(epochs=2, batch=12, lr=0.05, pad=0, flip=False, precision="float32")
    ours, _ = trained(tmp_path, recipe, count=36)
    theirs, data = network().train(), images(36)
    sgd = torch.optim.SGD(theirs.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True)
    for epoch in range(2):
        order = torch.randperm(36, generator=torch.Generator().manual_seed(epoch))
        for step, rows in enumerate(order.split(12)):
            sgd.param_groups[0]["lr"] = recipe.learning_rate((3 * epoch + step) / 6)
            pixels = torch.from_numpy(data.images)[rows].float() / 255
            logits = theirs(pixels)
            loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(data.labels)[rows])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
    for a, b in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


# resuming


class Cut(Exception):
    """Stands for a kill."""


def cut_after(monkeypatch, steps):
    """Let the process fail after so many steps."""
    done = 0
    advance = training.Progress.advance

    def counted(self, count, note=""):
        nonlocal done
        done += count
        if done > steps:
            raise Cut
        advance(self, count, note)

    monkeypatch.setattr(training.Progress, "advance", counted)


@pytest.mark.parametrize("steps", [4, 13])
def test_a_run_that_was_cut_ends_in_the_same_bits(tmp_path, monkeypatch, capsys, steps):
    whole, history = trained(tmp_path / "whole")
    with monkeypatch.context() as patch:
        cut_after(patch, steps)
        with pytest.raises(Cut):
            trained(tmp_path / "cut")
    capsys.readouterr()
    resumed, joined = trained(tmp_path / "cut")
    assert f"goes on after epoch {steps // 4} of 4" in capsys.readouterr().err
    assert digest(resumed) == digest(whole)
    for name in ("loss", "accuracy"):
        assert joined[name] == history[name]


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
sys.path.insert(0, sys.argv[2])
from pathlib import Path
import torch
from gradbench.backbones import training
import test_training
torch.set_num_threads(1)
done = 0
def advance(self, count, note=""):
    global done
    done += 1
    if done == 11:
        os.kill(os.getpid(), signal.SIGKILL)
training.Progress.advance = advance
test_training.trained(Path(sys.argv[3]))
"""


@pytest.mark.slow
def test_a_killed_process_is_resumed_to_the_same_bits(tmp_path):
    torch.set_num_threads(1)
    whole, _ = trained(tmp_path / "whole")
    here = Path(__file__).parent
    arguments = [str(here.parent), str(here), str(tmp_path / "killed")]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert os.listdir(tmp_path / "killed") == ["training.safetensors"]
    resumed, history = trained(tmp_path / "killed")
    assert digest(resumed) == digest(whole)
    assert len(history["loss"]) == 4


@pytest.mark.parametrize(("change", "seed"), [({"lr": 0.02}, 0), ({}, 1)])
def test_a_checkpoint_of_another_recipe_or_seed_is_not_used(tmp_path, capsys, change, seed):
    recipe = Recipe(**{**vars(RECIPE), **change})
    fresh, _ = trained(tmp_path / "fresh", recipe, seed)
    trained(tmp_path / "used")
    capsys.readouterr()
    other, _ = trained(tmp_path / "used", recipe, seed)
    assert "goes on" not in capsys.readouterr().err
    assert digest(other) == digest(fresh)


def test_a_damaged_checkpoint_is_begun_anew(tmp_path):
    whole, _ = trained(tmp_path / "whole")
    trained(tmp_path / "used")
    path = tmp_path / "used" / "training.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    again, _ = trained(tmp_path / "used")
    assert digest(again) == digest(whole)


def test_divergence_is_refused_and_not_kept(tmp_path):
    recipe = Recipe(epochs=3, batch=16, lr=1e25, precision="float32")
    with pytest.raises(GradbenchError, match=r"diverged in epoch \d.*smaller training.lr than"):
        trained(tmp_path, recipe)
    kept = tmp_path / "training.safetensors"
    assert not kept.exists()


# telling the time


def test_timing_leaves_the_network_as_it_was():
    backbone = network()
    before = digest(backbone)
    seconds = estimate_seconds(backbone, images(30), RECIPE, 1000, Worker(CPU))
    assert 0 < seconds < 1000
    assert digest(backbone) == before
    assert not backbone.training
    assert all(p.grad is None for p in backbone.parameters())


def test_long_training_on_a_cpu_names_what_is_cheaper(tmp_path, capsys, monkeypatch):
    def announced(seconds):
        monkeypatch.setattr(training, "estimate_seconds", lambda *_: seconds)
        work = tmp_path / str(seconds)
        train(network(), images(30), Recipe(epochs=1, batch=16), 0, work, Worker(CPU))
        return capsys.readouterr().err

    assert "about 2.0 h on cpu; a narrower network (backbone.width) is" in announced(7300)
    assert "cheaper" not in announced(7100)
