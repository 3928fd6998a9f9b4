"""A user's own images and network, named on the command line alone."""

import numpy as np
from _runs import TINY, gradbench, one_sentence, rows
from PIL import Image

NET = """
import torch


class Net(torch.nn.Module):
    def __init__(self, classes, channels, depth=1):
        super().__init__()
        self.layers = torch.nn.Sequential(
            *(torch.nn.Conv2d(channels, channels, 3, padding=1) for _ in range(depth))
        )
        self.out = torch.nn.Linear(64 * channels, classes)

    def forward(self, x):
        return self.out(torch.relu(self.layers(x)).flatten(1))
"""
WORDS = tuple(w for w in TINY if not w.startswith(("challenges", "backbone")))


def test_a_folder_and_a_file_as_challenges(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(40):
        pixels = rng.integers(0, 256, (12, 12, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    images = rng.integers(0, 256, (40, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "mine.npz", images=images, labels=np.zeros(40, int))
    challenges = "{use: folder, name: mine, path: photos}, {use: arrays, name: own, path: mine.npz}"
    ran = gradbench("run", *WORDS, f"challenges=[{challenges}]", cwd=tmp_path)
    assert ran.code == 0, ran.err
    for name in ("mine", "own"):
        found = rows(tmp_path, challenge=name, metric="auroc", method="msp")
        assert max(int(row["n_abnormal"]) for row in found if row["value"]) == 40


def test_one_file_as_in_distribution_set(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 3
    images = (rng.integers(0, 90, (200, 8, 8, 1)) + 60 * labels[:, None, None, None]).astype("u1")
    np.savez(tmp_path / "mine.npz", images=images, labels=labels)
    ran = gradbench(
        *("run", *WORDS, "challenges=[gaussian_noise]", "dataset=arrays"),
        *("dataset.path=mine.npz", "dataset.holdout=20"),
        cwd=tmp_path,
    )
    assert ran.code == 0, ran.err
    found = rows(tmp_path, in_dist="mine", challenge="gaussian_noise", metric="auroc")
    assert max(int(row["n_normal"]) for row in found if row["value"]) == 40


def test_a_network_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "own_net.py").write_text(NET)
    words = ("run", *WORDS, "challenges=[gaussian_noise]", "backbone=custom")
    # what lies in the working folder is not imported unless its folder is named
    sentence = one_sentence(gradbench(*words, "backbone._target_=own_net.Net", cwd=tmp_path))
    assert "No module named 'own_net'" in sentence
    assert "PYTHONPATH=DIR names the folder in which it lies" in sentence
    monkeypatch.syspath_prepend(tmp_path)
    ran = gradbench(*words, "backbone._target_=own_net.Net", "+backbone.depth=2", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert {row["backbone"] for row in rows(tmp_path, metric="auroc")} == {"custom"}


def test_a_network_without_class_is_one_sentence(tmp_path):
    for command in ("run", "plan"):
        sentence = one_sentence(gradbench(command, *WORDS, "backbone=custom", cwd=tmp_path))
        assert sentence.startswith("backbone=custom has no class: name it with backbone._target_=")
