"""A user's own network, images, challenge and detector: Python beside YAML, nothing edited."""

import numpy as np
import pytest
import torch
from _runs import TINY, about, gradbench, kept, one_sentence, rows

pytestmark = pytest.mark.slow

FILES = {
    "my_parts.py": '''
import torch
from torch import nn

from gradbench.challenges.base import Derived
from gradbench.methods.base import Detector, Info
from gradbench.errors import GradbenchError


class Flat(nn.Module):
    """Two layers on flattened pixels."""

    def __init__(self, classes, channels=1, hidden=12):
        super().__init__()
        self.hidden = nn.Linear(64 * channels, hidden)
        self.out = nn.Linear(hidden, classes)

    def forward(self, x):
        return self.out(torch.relu(self.hidden(x.flatten(1))))


class Darker(Derived):
    """Pixels times 1 - strength; `offset` is what a careless author adds."""

    kind = "corruption"
    family = "darker"

    def __init__(self, strengths, offset=0):
        self.strengths, self.offset = tuple(strengths), offset

    def settings(self):
        return {"offset": self.offset}

    def perturb(self, clean, strength, seed, network=None):
        return (clean.grey * (1 - strength) + self.offset).clamp(0, 255)


class Margin(Detector):
    """Minus the distance of the two largest logits."""

    info = Info("none", "here 2024", "https://example.org")
    supervision = "none"
    reads = ("logits",)

    def __init__(self, scale=1.0):
        if scale <= 0:
            raise GradbenchError(f"scale={scale}: above 0")
        self.scale = scale

    def score(self, outputs):
        top = outputs["logits"].double().topk(2, 1).values
        return -self.scale * (top[:, 0] - top[:, 1])
''',
    "backbone/flat.yaml": "_target_: my_parts.Flat\nname: flat\nhidden: 12\ncheckpoint: null\n",
    "challenge/darker.yaml": "_target_: my_parts.Darker\ndescription: less light\n"
    "strengths: [0.2, 0.4, 0.6, 0.8, 0.9]\n",
    "challenge/stripes.yaml": "_target_: gradbench.challenges.other_set.OtherSet\n"
    "dataset: stripes\n",
    "dataset/halves.yaml": "_target_: gradbench.data.user_data.Arrays\nname: halves\n"
    "path: images/halves\n"
    "roles: {train: train, test: test}\nholdout: 20\naugment: {pad: 0, flip: false}\n",
    "dataset/stripes.yaml": "_target_: gradbench.data.user_data.Arrays\nname: stripes\n"
    "path: images/stripes.npz\nroles: {challenge: all}\ndescription: stripes of mine\n",
    "detector/margin.yaml": "_target_: my_parts.Margin\ndescription: my own\n",
    "experiment/mine.yaml": "# @package _global_\ndefaults:\n  - override /dataset: halves\n"
    "  - override /backbone: flat\nname: mine\nchallenges: [darker, stripes]\n"
    "detectors: [margin, msp]\n",
}
WORDS = (
    *("--config-dir", "settings", "experiment=mine", "training.epochs=4", "training.batch=32"),
    *("levels=[3]", "evaluation.replicates=100", "out=run", "store=store"),
)


def halves(count: int) -> dict[str, np.ndarray]:
    """Return images with a bright left, right or upper half, which is their class."""
    rng = np.random.default_rng(count)
    images, labels = rng.integers(0, 90, (count, 8, 8, 1), np.uint8), np.arange(count) % 3
    for label, half in enumerate((np.s_[:, :, :4], np.s_[:, :, 4:], np.s_[:, :4])):
        part = images[labels == label]
        part[half] += 120
        images[labels == label] = part
    return {"images": images, "labels": labels}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Return a folder with settings and images of a user, and what running them gave."""
    here = tmp_path_factory.mktemp("project")
    for name, text in FILES.items():
        path = here / "settings" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (here / "images/halves").mkdir(parents=True)
    np.savez(here / "images/halves/train.npz", **halves(260))
    np.savez(here / "images/halves/test.npz", **halves(120))
    stripes = np.zeros((60, 16, 16, 3), np.uint8)
    stripes[:, ::4] = np.random.default_rng(0).integers(100, 255, (60, 1, 1, 1))
    np.savez(here / "images/stripes.npz", images=stripes, labels=np.zeros(60, np.int64))
    ran = gradbench("run", *WORDS, cwd=here)
    assert ran.code == 0, ran.err
    return here


def test_everything_of_the_user_is_measured(project):
    found = {
        (row["challenge_set"], row["challenge"], row["level"], row["method"])
        for row in rows(project, metric="auroc", fold="all")
        if row["challenge_set"] != "control"
    }
    assert found == {
        *(("corruption", "darker", "3", method) for method in ("margin", "msp")),
        *(("ood", "stripes", "0", method) for method in ("margin", "msp")),
    }
    (accuracy,) = rows(project, method="f")
    assert (accuracy["in_dist"], accuracy["backbone"]) == ("halves", "flat")
    assert float(accuracy["value"]) > 80
    sets = about(project)["data"]
    assert (sets["train"]["images"], sets["hold-out"]["images"]) == (240, 20)
    assert "16x16 -> 8x8" in sets["stripes all"]["note"]


def test_everything_of_the_user_is_listed(project):
    out = gradbench("list", "--config-dir", "settings", cwd=project).out
    for name, description in (
        ("margin", "my own"),
        ("darker", "less light"),
        ("stripes", "stripes of mine"),
    ):
        (line, *_) = [text for text in out.splitlines() if text.split()[0] == name]
        assert "ready" in line
        assert description in line
    assert "margin" not in gradbench("list", "detectors", cwd=project).out
    told = gradbench("list", "detector=margin", "--config-dir", "settings", cwd=project)
    assert (told.code, told.err) == (0, "")
    assert told.out.startswith("margin\n")


def test_a_dataset_without_the_role_is_told_before_training(project, tmp_path):
    word = "challenges=[{use: stripes, roles: {test: all}}]"
    words = ("--config-dir", str(project / "settings"), *WORDS[2:])
    sentence = one_sentence(gradbench("run", *words, word, cwd=tmp_path))
    assert sentence.startswith("no role of stripes named 'challenge'")


def test_a_setting_of_the_users_detector(project):
    words = ("detectors=[{use: margin, scael: 2}]",)
    sentence = one_sentence(gradbench("run", *WORDS, *words, cwd=project))
    assert "did you mean scale?" in sentence
    words = ("detectors=[{use: margin, scale: 0}]",)
    assert "scale=0: above 0" in one_sentence(gradbench("run", *WORDS, *words, cwd=project))


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_checkpoint_of_the_users_network(project, suffix):
    from safetensors.torch import load_file, save_file

    state = load_file(project / "run/model/s0/network.safetensors")
    path = project / f"mine.{suffix}"
    if suffix == "pt":
        torch.save({"state_dict": {f"module.{n}": t for n, t in state.items()}}, path)
    else:
        save_file(state, path)
    before = kept(project)
    # the file does not say what it was trained on, so that we must
    own = (f"backbone.checkpoint={path.name}", "backbone.trained_on=without_hold_out")
    ran = gradbench("run", *WORDS, *own, f"out={suffix}", cwd=project)
    assert ran.code == 0, ran.err
    assert kept(project) == before


def test_zero_strength_that_changes_pixels_stops_the_run(project, tmp_path):
    ran = gradbench(
        *("run", "--config-dir", str(project / "settings"), *TINY),
        "challenges=[fgsm,{use: darker, name: careless, offset: 1}]",
        cwd=tmp_path,
    )
    assert ran.code == 2
    assert "Traceback" not in ran.err
    last = ran.err.splitlines()[-1]
    assert last.startswith("gradbench: identity control")
    assert "pixels of careless" in last
    assert not (tmp_path / "run").exists()
    assert not any(step == "scores" for step, _ in kept(tmp_path))
