"""A user's own images and network, named on the command line alone."""

import json
import sys

import numpy as np
import pytest
from _runs import TINY, gradbench, kept, one_sentence, rows
from PIL import Image

from gradbench import load
from gradbench.errors import GradbenchError

pytestmark = pytest.mark.slow

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


def test_one_file_as_in_distribution_set_against_a_folder_and_a_file(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(40):
        pixels = rng.integers(0, 256, (12, 12, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    images = rng.integers(0, 256, (40, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "other.npz", images=images, labels=np.zeros(40, int))
    labels = np.arange(200) % 3
    images = (rng.integers(0, 90, (200, 8, 8, 1)) + 60 * labels[:, None, None, None]).astype("u1")
    np.savez(tmp_path / "mine.npz", images=images, labels=labels)
    challenges = "{use: folder, name: a, path: photos}, {use: arrays, name: b, path: other.npz}"
    ran = gradbench(
        *("run", *WORDS, f"challenges=[gaussian_noise,{challenges}]", "dataset=arrays"),
        *("dataset.path=mine.npz", "dataset.holdout=20"),
        cwd=tmp_path,
    )
    assert ran.code == 0, ran.err
    for name in ("a", "b", "gaussian_noise"):
        measured = rows(tmp_path, in_dist="mine", challenge=name, metric="auroc", method="msp")
        for side in ("n_normal", "n_abnormal"):
            assert max(int(row[side]) for row in measured if row["value"]) == 40


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


PARTS = """
import torch

from gradbench.backbones.small_cnn import SmallCNN
from gradbench.challenges.base import Derived
from gradbench.methods.base import Detector, Info


class Good(Detector):
    info = Info("A title", "Venue 2020", "https://example.org")
    supervision = "none"
    reads = ("logits",)

    def score(self, outputs):
        return self.turn(-outputs["logits"].logsumexp(1))

    def turn(self, scores):
        return scores


class Clamps(Good):
    def score(self, outputs):
        return outputs["logits"].clamp_(max=0.1).sum(1)


class Raises(Good):
    def turn(self, scores):
        return scores.no_such_thing()


class Centred(Good):
    supervision = "training"

    def turn(self, scores):
        return scores - scores.mean()


class Unfit(Good):
    bank_reads = ("logits",)

    def fit(self, bank, fit, choose, seed=0):
        raise RuntimeError("cannot be fitted")


class Misspelt(Good):
    supervision = "nun"


class Built(Good):
    def __init__(self):
        raise OSError("no such weights")


class Dark(Derived):
    kind, family, strengths = "corruption", "dark", (1.0,)

    def perturb(self, clean, strength, seed, network=None):
        return clean.grey * (1 - 0.5 * strength)


class Broken(Dark):
    def perturb(self, clean, strength, seed, network=None):
        return clean.grey * float("nan")


class Kindless(Dark):
    kind = None


class Mixed(Dark):
    def perturb(self, clean, strength, seed, network=None):
        return clean.grey.flip(0)


class Net(SmallCNN):
    def forward(self, x):
        return {"logits": super().forward(x), "x": x}
"""
DETECTORS = ("Clamps", "Raises", "Centred", "Unfit", "Misspelt", "Built")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with classes of one's own, named as PYTHONPATH names it, and their files."""
    (tmp_path / "my_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("my_parts", None)  # another test's
    for group, names in {
        "detector": ("Good", *DETECTORS),
        "challenge": ("Dark", "Broken", "Kindless", "Mixed"),
    }.items():
        (tmp_path / "settings" / group).mkdir(parents=True)
        for name in names:
            place = tmp_path / "settings" / group / f"{name.lower()}.yaml"
            place.write_text(f"_target_: my_parts.{name}\ndescription: mine\n")
    yield tmp_path
    sys.modules.pop("my_parts", None)


def edit(project, old, new):
    """Edit the classes of a project and have the next command read them anew."""
    text = (project / "my_parts.py").read_text()
    assert text.count(old) == 1
    (project / "my_parts.py").write_text(text.replace(old, new))
    del sys.modules["my_parts"]


def run(project, *words, command="run"):
    head = (command, "--config-dir", str(project / "settings"))
    return gradbench(*head, *WORDS, "backbone=small_cnn", *words, cwd=project)


def numbers(project, method):
    """Return the numbers of a detector by what they measure."""
    found = rows(project, method=method, fold="all")
    return {
        (row["challenge"], row["metric"], row["side"]): row["value"]
        for row in found
        if row["metric"] != "auroc_difference"
    }


def test_faults_of_ones_own_parts_are_rows_and_leave_the_others_alone(project):
    names = ",".join(name.lower() for name in DETECTORS)
    challenges = "challenges=[dark,broken,kindless,mixed]"
    ran = run(project, f"detectors=[{names},good,msp]", challenges)
    assert ran.code == 0, ran.err
    reasons = {
        "clamps": "detector clamps: Clamps.score changes its input in place (logits)",
        "raises": "detector raises: Raises.score raises AttributeError (",
        "centred": "detector centred: Centred.score gives an image ",
        "unfit": "detector unfit: Unfit.fit raises RuntimeError (cannot be fitted) in my_parts.py",
        "misspelt": "detector misspelt: Misspelt: no supervision named 'nun'",
        "built": "detector built: my_parts.Built raises OSError (no such weights) in my_parts.py",
    }
    for name, reason in reasons.items():
        assert not [row for row in rows(project, method=name) if row["value"]], name
        (row,) = rows(project, method=name, challenge="dark")
        assert row["note"].startswith(f"not measured: {reason}")
        assert ran.err.count(reason) <= 1
        assert reason in ran.out
    for name, reason in {
        "broken": "challenge broken: Broken.perturb gives grey levels that are NaN or infinite",
        "kindless": "challenge kindless: Kindless: no kind of challenge named 'None'",
        "mixed": "challenge mixed: Mixed.perturb makes ",
    }.items():
        (row,) = rows(project, challenge=name)
        assert (row["method"], row["challenge_set"]) == ("", "corruption")
        assert row["note"].startswith(f"not measured: {reason}")
        assert reason in (project / "run/table.md").read_text()
    beside = {name: numbers(project, name) for name in ("msp", "good")}
    assert len(beside["msp"]) == len(beside["good"]) > 5
    assert {entry["column"] for entry in model(project)["detectors"]} == {"good", "msp"}

    assert run(project, "detectors=[good,msp]", "challenges=[dark]", "store=fresh").code == 0
    assert {name: numbers(project, name) for name in beside} == beside


def model(project):
    return json.loads((project / "run/model/s0/model.json").read_text())


def test_a_run_in_which_no_detector_is_left_says_why(project):
    sentence = one_sentence(run(project, "detectors=[misspelt,built]", "challenges=[dark]"))
    assert "no supervision named 'nun'" in sentence
    assert "Built raises OSError" in sentence
    ran = run(project, "detectors=[clamps]", "challenges=[dark]")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines()[-1].startswith("gradbench: detector clamps: Clamps.score changes")


def test_edited_code_gives_new_numbers_and_plans_and_models_know(project, monkeypatch):
    words = ("detectors=[good,msp]", "challenges=[dark]", "backbone._target_=my_parts.Net")
    assert run(project, *words).code == 0
    first, made = numbers(project, "good"), kept(project)
    assert "1 of 1 there" in run(project, *words, command="plan").out.splitlines()[1]

    monkeypatch.syspath_prepend(project)
    assert "good" in load(project / "run", trust=["my_parts"]).choose()
    edit(project, "return scores\n", "return -scores\n")
    with pytest.raises(GradbenchError, match=r"the code of my_parts\.Net is another than in the"):
        load(project / "run", trust=["my_parts"])
    assert run(project, *words).code == 0
    turned = numbers(project, "good")
    assert turned["dark", "auroc", ""] != first["dark", "auroc", ""]
    assert {"network", "challenge", "scores"} <= {step for step, _ in kept(project) - made}
    assert run(project, *words, "store=fresh").code == 0
    assert numbers(project, "good") == turned
