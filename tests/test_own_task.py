"""A task of the user's own and a method that it measures: two files each, no other is edited."""

import sys

import numpy as np
import pytest
import torch
from _runs import TINY, gradbench, one_sentence, rows
from safetensors.numpy import load_file
from sklearn.metrics import accuracy_score

from gradbench.errors import Faulty
from gradbench.methods.base import Classifier, Info
from gradbench.methods.checked import checked
from gradbench.statistics.bootstrap import EvaluationSettings, FoldScores
from gradbench.statistics.metrics import Measure
from gradbench.tasks.base import Task

PARTS = """
import numpy as np

from gradbench.methods.base import Classifier, Info
from gradbench.statistics.metrics import Measure
from gradbench.tasks.base import Task

ACCURACY, ECE = Measure("accuracy"), Measure("ece")


class Recognition(Task):
    measures, sides, predicts = (ACCURACY, ECE), ("abnormal",), "probabilities"

    def __init__(self, name="recognition", description=""):
        self.name, self.description = name, description

    def target(self, images, abnormal):
        return images.labels

    def measure(self, prediction, target, weights=None):
        weights = np.ones((1, len(target))) if weights is None else weights
        right, sure = (prediction.argmax(1) == target).astype(float), prediction.max(1)
        bins = np.minimum((15 * sure).astype(int), 14)
        gaps = [(weights * (right - sure) * (bins == b)).sum(1) for b in range(15)]
        total = weights.sum(1)
        return {ACCURACY: (weights * right).sum(1) / total, ECE: np.abs(gaps).sum(0) / total}


class Softmax(Classifier):
    info = Info("f", "", "")
    supervision, reads = "none", ("logits",)

    def predict(self, outputs):
        return outputs["logits"].double().softmax(1)
"""
WORDS = ("run", *TINY, "--config-dir=parts", "task=recognition", "detectors=[softmax]")


@pytest.fixture
def parts(tmp_path, monkeypatch):
    (tmp_path / "own_recognition.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    for group, name in (("task", "Recognition"), ("detector", "Softmax")):
        (tmp_path / "parts" / group).mkdir(parents=True)
        file = tmp_path / "parts" / group / f"{name.lower()}.yaml"
        file.write_text(f"_target_: own_recognition.{name}\ndescription: mine\n")
    yield tmp_path
    sys.modules.pop("own_recognition", None)


def test_a_task_is_measured_and_has_its_table(parts):
    ran = gradbench(*WORDS, "challenges=[gaussian_noise]", "level=5", cwd=parts)
    assert ran.code == 0, ran.err
    main = {row["metric"]: row for row in rows(parts, role="main", fold="all")}
    assert set(main) == {"accuracy", "ece"}
    (kept,) = parts.rglob("scores/*/scores.safetensors")
    arrays = load_file(kept)
    folds = [arrays[f"{i}/abnormal"] for i in range(len(arrays) // 4)]
    assert all(fold.shape[1] == 10 and np.allclose(fold.sum(1), 1) for fold in folds)
    clean = {row["challenge"]: float(row["value"]) for row in rows(parts, role="network")}
    assert 10 < float(main["accuracy"]["value"]) < clean["digits"]
    assert not any(rows(parts, role=role) for role in ("memorisation", "identity"))
    (table,) = parts.rglob("table.md")
    assert "## Recognition" in table.read_text()
    assert "AUROC" not in table.read_text()
    page = gradbench("report", str(table.parent), "out=page.html", cwd=parts)
    assert page.code == 0, page.err


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("detectors=[msp,softmax]", "task=recognition measures probabilities; msp (score) give"),
        ("task=detection", "task=detection measures score; softmax (probabilities)"),
    ],
)
def test_methods_of_another_task_are_named(parts, word, text):
    assert text in one_sentence(gradbench(*WORDS, word, cwd=parts))


class Accuracy(Task):
    measures, sides = (Measure("accuracy"),), ("abnormal",)

    def target(self, images, abnormal):
        return images.labels

    def measure(self, prediction, target, weights=None):
        weights = np.ones((1, len(target))) if weights is None else weights
        right = prediction.argmax(1) == target
        return {Measure("accuracy"): (weights * right).sum(1) / weights.sum(1)}


def test_one_bootstrap_serves_every_task():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    values = rng.random((400, 3)) + np.eye(3)[labels] * (rng.random((400, 1)) < 0.6)
    names = np.arange(400).astype(str)
    folds = [FoldScores(values[:10], names[:10], values, names)]
    settings = EvaluationSettings(replicates=2000, confidence=0.95, seed=0)
    (found,) = Accuracy().estimates(folds, [(labels[:10], labels)], settings)
    share = accuracy_score(labels, values.argmax(1))
    error = 1.96 * np.sqrt(share * (1 - share) / 400)
    assert found.value == pytest.approx(share)
    assert found.n_abnormal == 400
    assert (found.hi - found.lo) / 2 == pytest.approx(error, rel=0.1)


class Wrong(Classifier):
    info, supervision, reads = Info("", "", ""), "none", ("logits",)

    def __init__(self, make):
        self.make = make

    def predict(self, outputs):
        return self.make(outputs["logits"])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda z: z.amax(1), r"probabilities of shape \(4,\) for 4 images: \(4, classes\) is due"),
        (lambda z: z + 2, "outside 0 and 1"),
        (lambda z: z.softmax(0), "among some and"),
        (lambda z: z / 0, "not finite"),
    ],
)
def test_probabilities_are_looked_at(make, text):
    torch.manual_seed(0)
    method = checked("wrong", Wrong(make))
    with pytest.raises(Faulty, match=text):
        method.predict({"logits": torch.randn(4, 3)})
