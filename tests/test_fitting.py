"""What detectors are given of training images, of the hold-out and of f itself."""

from types import SimpleNamespace

import pytest
import torch
from _dummies import images, network

from gradbench.backbones.backbone import digest
from gradbench.data.gather import InDistribution
from gradbench.detectors.base import Detector
from gradbench.experiment import Experiment
from gradbench.fitting import clean
from gradbench.trial import Trial


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


@pytest.fixture
def trial(store):
    f = network()
    sets = {name: images(count, seed=count) for name, count in (("train", 30), ("test", 12))}
    world = InDistribution(sets["train"], images(21, seed=3), sets["test"], sets["test"])
    detectors = {
        kind.__name__.lower(): {"_target_": f"{kind.__module__}.{kind.__name__}"}
        for kind in (Asking, Blind)
    }
    experiment = Experiment({}, (), None, (), detectors, None, (0,), None, torch.device("cpu"))
    return Trial(experiment, world, SimpleNamespace(backbone=f, weights=digest(f)), 0, store)


def test_labels_and_the_last_layer_are_handed_over(trial):
    given = clean(trial, "asking")
    assert sorted(given.bank) == ["features", "head/bias", "head/weight", "labels"]
    assert given.bank["labels"].tolist() == trial.images.train.labels.tolist()
    assert sorted(given.hold_out) == ["labels", "logits"]
    assert len(given.hold_out["logits"]) == len(given.hold_out["labels"]) == 21
    logits = given.bank["features"] @ given.bank["head/weight"].T + given.bank["head/bias"]
    with torch.inference_mode():
        pixels = torch.from_numpy(trial.images.train.images).float() / 255
        torch.testing.assert_close(logits, trial.f.backbone(pixels), rtol=1e-4, atol=1e-5)


def test_what_is_not_asked_for_is_not_computed(trial):
    given = clean(trial, "blind")
    assert given.bank == given.hold_out == {}
    assert trial.store.made == []
