"""What detectors are given of training images, of the hold-out and of f itself."""

from dataclasses import replace
from types import MappingProxyType, SimpleNamespace
from typing import ClassVar

import pytest
import torch
from _dummies import images, network

from gradbench.backbones.backbone import digest
from gradbench.challenges.controls import Identity
from gradbench.config import load_member
from gradbench.data.in_distribution import InDistribution
from gradbench.errors import GradbenchError
from gradbench.methods.base import Detector
from gradbench.protocols.base import Grouped
from gradbench.run import evaluate as roles
from gradbench.run.cases import MEMORISATION, Case
from gradbench.run.context import NetworkContext
from gradbench.run.evaluate import evaluate
from gradbench.run.experiment import Cell, Experiment
from gradbench.run.fitting import clean_outputs, fitted, image_scores
from gradbench.run.measurement import CaseResult
from gradbench.run.synthetic import make, relation
from gradbench.support.instantiate import instantiate


class Asking(Detector):
    """Asks for everything there is."""

    supervision = "none"
    reads = ("logits",)
    bank_reads = ("features", "labels", "head/weight", "head/bias")
    hold_out_reads = ("logits", "labels")

    def score(self, outputs):
        return outputs["logits"].amax(1)


class Blind(Asking):
    """Asks for nothing but what it scores."""

    bank_reads = hold_out_reads = ()


class OneClass(Detector):
    """Distance to the mean logits of the images it was fitted on; notes what it saw."""

    supervision = "none"
    reads = hold_out_reads = ("logits",)
    seen: ClassVar[list] = []

    def fit(self, bank, fit, choose, seed=0):
        self.seen.append((fit, choose, seed))
        self.mean = fit.outputs["logits"][~fit.abnormal].mean(0)
        return self

    def score(self, outputs):
        return (outputs["logits"] - self.mean).norm(dim=1)

    def state(self):
        return {"mean": self.mean}

    def load(self, state):
        self.mean = state["mean"]
        return self


class Knows(Blind):
    """Distance to the nearest training image: 0 for those themselves."""

    bank_reads = ("logits",)

    def fit(self, bank, fit, choose, seed=0):
        self.bank = bank["logits"]
        return self

    def score(self, outputs):
        return torch.cdist(outputs["logits"], self.bank).amin(1)

    def state(self):
        return {"bank": self.bank}

    def load(self, state):
        self.bank = state["bank"]
        return self


class Few(Asking):
    """The same of few training images."""

    bank_images = 6


class Supervised(Knows):
    """The same, but the bank is that of the first challenge's state."""

    supervision = "training"
    bank_reads = ()


class Own(OneClass):
    """The same, with challenges of its own."""

    supervision = "synthetic"
    hold_out_reads = ()
    synthetic = MappingProxyType({"gaussian_noise": 5, "fgsm": None})
    synthetic_images = 18


@pytest.fixture
def trial(store):
    f = network()
    sets = {name: images(count, seed=count) for name, count in (("train", 30), ("test", 12))}
    world = InDistribution(sets["train"], images(21, seed=3), sets["test"], sets["test"])
    detectors = {
        kind.__name__.lower(): {"_target_": f"{kind.__module__}.{kind.__name__}"}
        for kind in (Asking, Blind, Few, OneClass, Own, Knows, Supervised)
    }
    OneClass.seen.clear()
    config = {"detector": {"seed": 7}, "challenge": {"seed": 0, "quantise": True}}
    config |= {"controls": {"limit": 2000}, "evaluation": {"seed": 0}}
    experiment = Experiment(
        config, (), None, (), detectors, Grouped(), (0,), None, (torch.device("cpu"),)
    )
    return NetworkContext(
        experiment, world, SimpleNamespace(backbone=f, weights=digest(f)), 0, store
    )


def test_labels_and_the_last_layer_are_handed_over(trial):
    given = clean_outputs(trial, "asking")
    assert sorted(given.bank) == ["features", "head/bias", "head/weight", "labels"]
    assert given.bank["labels"].tolist() == trial.images.train.labels.tolist()
    assert sorted(given.hold_out) == ["labels", "logits"]
    assert len(given.hold_out["logits"]) == len(given.hold_out["labels"]) == 21
    logits = given.bank["features"] @ given.bank["head/weight"].T + given.bank["head/bias"]
    with torch.inference_mode():
        pixels = torch.from_numpy(trial.images.train.images).float() / 255
        torch.testing.assert_close(logits, trial.f.backbone(pixels), rtol=1e-4, atol=1e-5)


def test_one_pass_over_the_training_images_serves_all_detectors(trial):
    clean_outputs(trial, "asking")
    made = len(trial.store.made)
    given = clean_outputs(
        trial, "knows"
    )  # its logits were kept when the features of the other were read
    assert sorted(given.bank) == ["logits"]
    assert len(trial.store.made) == made


def test_of_the_training_images_no_more_are_read_than_are_needed(trial):
    given = clean_outputs(trial, "few")
    assert {len(given.bank[name]) for name in ("features", "labels")} == {6}
    assert given.bank["labels"].bincount().tolist() == [2, 2, 2]
    every = clean_outputs(trial, "asking")
    rows = torch.cdist(given.bank["features"], every.bank["features"]).argmin(1)
    assert torch.equal(every.bank["labels"][rows], given.bank["labels"])
    assert len(given.hold_out["logits"]) == 21


def test_what_is_not_asked_for_is_not_computed(trial):
    given = clean_outputs(trial, "blind")
    assert given.bank == given.hold_out == {}
    assert trial.store.made == []


def test_a_detector_without_challenges_is_fitted_once_on_the_hold_out(trial):
    sides = [trial.read_outputs(images(9, seed=s), ["logits"]) for s in (40, 41)]
    first = [image_scores(trial, "oneclass", side) for side in sides]
    again = [image_scores(trial, "oneclass", side) for side in sides]
    assert [a.tolist() for a in again] == [f.tolist() for f in first]
    ((fit, choose, seed),) = OneClass.seen
    assert seed == 7
    hold_out = trial.read_outputs(trial.images.hold_out, ["logits"]).outputs["logits"]
    for part in (fit, choose):
        assert not part.abnormal.any()
        assert torch.equal(part.outputs["logits"], hold_out)
    expected = (sides[0].outputs["logits"] - hold_out.mean(0)).norm(dim=1)
    torch.testing.assert_close(torch.from_numpy(first[0]).float(), expected)
    assert fitted(trial, "oneclass")[1]["mean"].tolist() == hold_out.mean(0).tolist()


def test_another_hold_out_is_another_fit(trial):
    image_scores(trial, "oneclass", trial.read_outputs(images(9, seed=40), ["logits"]))
    other = replace(trial, images=replace(trial.images, hold_out=images(24, seed=5)))
    image_scores(other, "oneclass", other.read_outputs(images(9, seed=40), ["logits"]))
    assert [len(fit.abnormal) for fit, _, _ in OneClass.seen] == [21, 24]


def test_own_challenges_are_made_of_halves_of_the_hold_out(trial):
    """Each half holds its images and, in the same order, what was made from these very images."""
    fitted(trial, "own")
    ((*halves, _),) = OneClass.seen
    made = make(trial, "own")
    assert len(made.clean) == 18
    assert {*made.clean.sources} <= {*trial.images.hold_out.sources}
    assert [one.name for one in made.made] == ["gaussian_noise 5", "fgsm"]
    sets = [
        trial.read_outputs(one, ["logits"]).outputs["logits"] for one in (made.clean, *made.made)
    ]
    rows = []
    for half in halves:
        parts = half.outputs["logits"].chunk(3)
        assert half.abnormal.tolist() == [False] * 9 + [True] * 18
        mine = [(sets[0] == row).all(1).nonzero().item() for row in parts[0]]
        for part, whole in zip(parts, sets):
            assert torch.equal(part, whole[mine])
        assert trial.images.hold_out.labels[mine].tolist().count(0) == 3
        rows += mine
    assert sorted(rows) == list(range(18))


def challenge(name: str):
    return Cell(name, instantiate("challenge", name, load_member("challenge", name)))


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ("gaussian_noise", "fitted on gaussian_noise 5"),
        ("shot_noise", "fitted on a relative: gaussian_noise 5"),
        ("impulse_noise", "fitted on a relative: gaussian_noise 5"),
        ("fgsm", "fitted on fgsm"),
        ("pgd", "fitted on a relative: fgsm"),
        ("cure_like_noise", "fitted on a relative: gaussian_noise 5"),
        ("cure_tsr_noise", "fitted on a relative: gaussian_noise 5"),
        ("cure_like_gaussian_blur", ""),
        ("cw", ""),
        ("gaussian_blur", ""),
        ("brightness", ""),
        ("svhn", ""),
    ],
)
def test_relatives(trial, measured, expected):
    own = trial.experiment.own_cells("own")
    assert relation(own, challenge(measured)) == expected
    assert relation((), challenge(measured)) == ""
    assert relation(own, Cell("identity", Identity())) == ""


@pytest.mark.parametrize(
    ("own", "text"),
    [
        ({"svhn": None}, "challenge svhn is not made from clean images"),
        ({"gaussian_noise": 6}, "gaussian_noise has no level 6"),
        ({"gaussian_nose": 1}, "gaussian_nose"),
    ],
)
def test_own_challenges_are_checked(trial, monkeypatch, own, text):
    monkeypatch.setattr(Own, "synthetic", own)
    with pytest.raises(GradbenchError, match=text):
        trial.experiment.own_cells("own")


def test_memorisation_of_a_score_that_knows_the_training_images_and_of_others(trial, monkeypatch):
    """A supervised detector is taken from the first challenge; one without a state has no row."""
    bank = trial.read_outputs(trial.images.hold_out, ["logits"]).outputs["logits"]
    svhn = Cell("svhn", Identity())
    first = CaseResult(Case("main", svhn, "supervised"), 0, state=lambda: {"bank": bank})
    monkeypatch.setattr(roles, "_first_fit", lambda *_: first)
    found = {}
    for name in trial.experiment.detectors:
        found[name] = result = evaluate(Case("memorisation", MEMORISATION, name), trial)
        assert (result.headline.n_normal, result.headline.n_abnormal) == (30, 21)
    assert found["knows"].headline.value == 1
    assert found["supervised"].headline.value == 0
    assert "fitted on svhn" in found["supervised"].note
    assert "fitted on these training images" in found["knows"].note
    assert "fitted on these hold-out images" in found["oneclass"].note
    monkeypatch.setattr(roles, "_first_fit", lambda *_: None)
    trial.known.clear()
    assert evaluate(Case("memorisation", MEMORISATION, "supervised"), trial) is None
