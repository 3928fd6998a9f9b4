"""The same scores as pytorch-ood, an independent implementation, on the same network and images.

Equal up to the scale told in each test; where definitions differ, theirs is applied to our parts.
"""

import numpy as np
import pytest
import torch
from _dummies import images, network
from scipy.stats import spearmanr
from torch.nn import functional

from gradbench.backbones.recipe import Recipe
from gradbench.backbones.training import train
from gradbench.detectors.base import Samples
from gradbench.detectors.energy import Energy
from gradbench.detectors.gradient_uncertainty import GradientUncertainty
from gradbench.detectors.gradnorm import GradNorm
from gradbench.detectors.knn import KNN
from gradbench.detectors.max_logit import MaxLogit
from gradbench.detectors.msp import MSP
from gradbench.detectors.react import ReAct
from gradbench.detectors.rmds import RMDS
from gradbench.detectors.vim import ViM
from gradbench.extraction.head import head_tensors
from gradbench.extraction.readers import read
from gradbench.gradients import squared_norms

theirs = pytest.importorskip("pytorch_ood.detector", reason="needs the extra `test`")
READS = ["logits", "features"]
NOTHING = Samples.normal({})


@pytest.fixture(scope="module")
def f(tmp_path_factory):
    """A small network that knows left, right and top halves."""
    backbone = network(width=8)
    recipe = Recipe(epochs=3, batch=16, lr=0.05, pad=0, flip=False, precision="float32")
    work = tmp_path_factory.mktemp("training")
    train(backbone, images(240, seed=9), recipe, 0, work, torch.device("cpu"))
    return backbone


@pytest.fixture(scope="module")
def pixels():
    """Half of them with a bright half, the others noise."""
    noise = np.random.default_rng(5).integers(0, 256, (60, 1, 8, 8))
    both = np.concatenate([images(60, seed=4).images, noise])
    return torch.from_numpy(both).float() / 255


@pytest.fixture(scope="module")
def outputs(f, pixels):
    return read(f, pixels, READS)


@pytest.fixture(scope="module")
def bank(f):
    data = images(240, seed=9)
    found = read(f, torch.from_numpy(data.images).float() / 255, READS)
    return found | head_tensors(f) | {"labels": torch.from_numpy(data.labels)}


def agree(ours, other, scale=1.0, rtol=1e-4):
    other = other.detach().double() * scale
    assert spearmanr(ours, other).statistic >= 0.9999
    torch.testing.assert_close(
        ours.double(), other, rtol=rtol, atol=rtol * other.abs().max().item()
    )


def test_scores_of_the_logits(outputs):
    logits = outputs["logits"]
    agree(MSP().score(outputs), theirs.MaxSoftmax.score(logits))
    agree(MaxLogit().score(outputs), theirs.MaxLogit.score(logits))
    for temperature in (1.0, 3.0):
        other = theirs.EnergyBased.score(logits, t=temperature)
        agree(Energy(temperature).score(outputs), other)


@pytest.mark.parametrize("k", [1, 50])
def test_knn(bank, outputs, k):
    ours = KNN(k=k).fit(bank, NOTHING, NOTHING)
    other = theirs.KNN(None, k=k).fit_features(bank["features"], bank["labels"])
    agree(ours.score(outputs), other.predict_features(outputs["features"]))


@pytest.mark.parametrize("dimension", [4, 8])
def test_vim(bank, outputs, dimension):
    ours = ViM(dimension=dimension).fit(bank, NOTHING, NOTHING)
    other = theirs.ViM(None, d=dimension, w=bank["head/weight"], b=bank["head/bias"])
    other.fit_features(bank["features"], bank["labels"])
    assert ours.alpha.item() == pytest.approx(other.alpha, rel=1e-4)
    expected = other.predict_features(outputs["features"])
    agree(ours.score(outputs), expected, rtol=1e-3)  # theirs is in float32


@pytest.fixture
def double_by_default():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("double_by_default")
def test_rmds_up_to_the_number_of_images(bank, outputs):
    """Theirs does not divide the covariances by N, so its distances are N times smaller.

    It adds 1e-6 to the diagonal where ours leaves out what does not vary, so units that do are
    compared.
    """
    alive = bank["features"].std(0) > 0.01
    features, queries = bank["features"][:, alive], outputs["features"][:, alive]
    ours = RMDS().fit({"features": features, "labels": bank["labels"]}, NOTHING, NOTHING)
    other = theirs.RMD(None).fit_features(features.double(), bank["labels"])
    agree(
        ours.score({"features": queries}), other.predict_features(queries.double()), len(features)
    )


def test_react(f, bank, outputs):
    ours = ReAct().fit(bank, NOTHING, NOTHING)
    other = theirs.ReAct(backbone=None, head=f.network.fc)
    other.fit_feature_maps(bank["features"], bank["labels"])
    assert ours.ceiling.item() == pytest.approx(other.threshold, rel=1e-6)
    agree(ours.score(outputs), other.predict_feature_maps(outputs["features"]))


def test_gradnorm(f, pixels, outputs):
    other = theirs.GradNorm(f, param_filter=lambda name: name == "network.fc.weight")
    other.to("cpu")
    agree(GradNorm().score(outputs), other.predict(pixels))


def test_graduncertainty_with_its_own_loss_and_sign(f, pixels):
    """Theirs takes the softmax before the BCE, sums over classes and turns the sign.

    With their loss in our engine the sums are equal; with the loss of the paper they are not.
    """

    def softmax_first(logits):
        p = logits.softmax(1)
        return functional.binary_cross_entropy(p, torch.ones_like(p), reduction="none").sum(1)

    other = theirs.GradUncertainty(f)
    other.to("cpu")
    expected = other.predict(pixels)
    detector = GradientUncertainty()
    norms = squared_norms(f, pixels, loss=softmax_first).values
    agree(-detector.score({detector.source: norms}), expected, rtol=1e-3)
    paper = detector.score({detector.source: squared_norms(f, pixels).values})
    assert abs(spearmanr(paper, expected).statistic) < 0.999
