"""The same scores as pytorch-ood, an independent implementation, on the same network and images.

Equal up to the scale told in each test; where definitions differ, theirs is applied to our parts.
"""

import numpy as np
import pytest
import torch
from _dummies import images, network
from scipy.stats import spearmanr

from gradbench.backbones.recipe import Recipe
from gradbench.backbones.training import train
from gradbench.backbones.workers import Worker
from gradbench.methods.ash import ASH
from gradbench.methods.base import Samples
from gradbench.methods.energy import Energy
from gradbench.methods.fdbd import FDBD
from gradbench.methods.gen import GEN
from gradbench.methods.gradient_uncertainty import GradientUncertainty
from gradbench.methods.gradnorm import GradNorm
from gradbench.methods.knn import KNN
from gradbench.methods.max_logit import MaxLogit
from gradbench.methods.msp import MSP
from gradbench.methods.nci import NCI
from gradbench.methods.react import ReAct
from gradbench.methods.scale import Scale
from gradbench.methods.vim import ViM
from gradbench.outputs.layers import head_tensors
from gradbench.outputs.read import read_outputs

theirs = pytest.importorskip("pytorch_ood.detector", reason="needs the extra `test`")
READS = ["logits", "features"]
NOTHING = Samples.normal({})


@pytest.fixture(scope="module")
def f(tmp_path_factory):
    """A small network that knows left, right and top halves."""
    backbone = network(width=8)
    recipe = Recipe(epochs=3, batch=16, lr=0.05, pad=0, flip=False, precision="float32")
    work = tmp_path_factory.mktemp("training")
    train(backbone, images(240, seed=9), recipe, 0, work, Worker(torch.device("cpu")))
    return backbone


@pytest.fixture(scope="module")
def pixels():
    """Half of them with a bright half, the others noise."""
    noise = np.random.default_rng(5).integers(0, 256, (60, 1, 8, 8))
    both = np.concatenate([images(60, seed=4).images, noise])
    return torch.from_numpy(both).float() / 255


@pytest.fixture(scope="module")
def outputs(f, pixels):
    return read_outputs(f, pixels, READS)


@pytest.fixture(scope="module")
def bank(f):
    data = images(240, seed=9)
    found = read_outputs(f, torch.from_numpy(data.images).float() / 255, READS)
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


def wide(width, principal, count=1000):
    """Return (bank, outputs) of random features, all but `principal` of them small."""
    size = torch.where(torch.arange(width) < principal, 1.0, 0.05)
    draw = torch.Generator().manual_seed(0)
    head = {"head/weight": torch.randn(3, width, generator=draw), "head/bias": torch.ones(3)}

    def outputs(count):
        features = torch.randn(count, width, generator=draw) * size
        logits = features @ head["head/weight"].T + head["head/bias"]
        return {"features": features, "logits": logits}

    return outputs(count) | head | {"labels": torch.arange(count) % 3}, outputs(60)


@pytest.mark.parametrize(("width", "dimension"), [(640, 512), (512, 256)])
def test_vim_of_wide_features_at_its_default_dimension(width, dimension):
    """They take 512 of 512 features, as ResNet-18 has, too: no residual is left, all is NaN."""
    bank, outputs = wide(width, dimension)
    ours = ViM().fit(bank, NOTHING, NOTHING)
    other = theirs.ViM(None, d=dimension, w=bank["head/weight"], b=bank["head/bias"])
    other.fit_features(bank["features"], bank["labels"])
    agree(ours.score(outputs), other.predict_features(outputs["features"]), rtol=1e-3)


def test_react(f, bank, outputs):
    ours = ReAct().fit(bank, NOTHING, NOTHING)
    other = theirs.ReAct(backbone=None, head=f.network.fc)
    other.fit_feature_maps(bank["features"], bank["labels"])
    assert ours.ceiling.item() == pytest.approx(other.threshold, rel=1e-6)
    agree(ours.score(outputs), other.predict_feature_maps(outputs["features"]))


@pytest.mark.parametrize("top", [2, 100])
@pytest.mark.parametrize("gamma", [0.1, 0.5])
def test_gen(outputs, gamma, top):
    """Theirs is the mean over the classes, with probabilities from 1e-7."""
    other = theirs.GEN.score(outputs["logits"], gamma=gamma, M=top)
    agree(GEN(gamma, top).score(outputs), other, scale=min(top, 3))


def test_fdbd(f, bank, outputs):
    ours = FDBD().fit(bank, NOTHING, NOTHING)
    other = theirs.fDBD(None, head=f.network.fc).fit_features(bank["features"])
    agree(ours.score(outputs), other.predict_features(outputs["features"]))


@pytest.mark.parametrize("alpha", [0.0, 1e-4, 0.1])
def test_nci(f, bank, outputs, alpha):
    ours = NCI(alpha).fit(bank, NOTHING, NOTHING)
    other = theirs.NCI(None, f.network.fc, alpha=alpha).fit_features(bank["features"])
    agree(ours.score(outputs), other.predict_features(outputs["features"]))


@pytest.mark.parametrize("percentile", [0, 40, 65, 85])
@pytest.mark.parametrize(("kind", "name"), [(ASH, "ASH"), (Scale, "SCALE")])
def test_ash_and_scale(f, bank, outputs, kind, name, percentile):
    ours = kind(percentile).fit(bank, NOTHING, NOTHING)
    head = {"backbone": None, "head": lambda maps: f.network.fc(maps.flatten(1))}
    other = getattr(theirs, name)(**head, percentile=percentile / 100)
    maps = outputs["features"][:, :, None, None]
    agree(ours.score(outputs), other.predict_feature_maps(maps))


def test_gradnorm(f, pixels, outputs):
    other = theirs.GradNorm(f, param_filter=lambda name: name == "network.fc.weight")
    other.to("cpu")
    agree(GradNorm().score(outputs), other.predict(pixels))


@pytest.fixture(scope="module")
def their_uncertainty(f, pixels):
    other = theirs.GradUncertainty(f)
    other.to("cpu")
    return other.predict(pixels)


def uncertainty(f, pixels, **settings):
    detector = GradientUncertainty(**settings)
    return detector.score(read_outputs(f, pixels, detector.reads))


def test_graduncertainty_by_their_definition(f, pixels, their_uncertainty):
    """BCE of the softmax with all ones is -sum_i log p_i; all squared norms summed, sign turned.

    Cross entropy to the uniform distribution is that divided by the number of classes.
    """
    summed = uncertainty(f, pixels, loss="ce_sum_one_hot")
    agree(-summed, their_uncertainty)
    agree(-uncertainty(f, pixels, loss="ce_uniform"), their_uncertainty, 1 / 3**2)
    assert not torch.equal(summed, uncertainty(f, pixels))


def test_graduncertainty_of_the_paper_runs_about_opposite(f, pixels, their_uncertainty):
    """Both norms tend to grow with confidence; theirs turns the sign, the paper does not.

    What remains is the loss: without the sign the order is alike and not the same.
    """
    paper = uncertainty(f, pixels)
    assert -0.95 < spearmanr(paper, their_uncertainty).statistic < -0.75  # -0.87
    unsure = MSP().score(read_outputs(f, pixels, READS))
    assert spearmanr(unsure, paper).statistic < -0.5
    assert spearmanr(unsure, their_uncertainty).statistic > 0.5
