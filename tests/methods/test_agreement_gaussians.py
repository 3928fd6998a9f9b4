"""Mahalanobis distances beside those of pytorch-ood, an independent implementation.

Theirs does not divide a covariance by N, so its distances are N times smaller, and adds 1e-6 to its
diagonal where ours leaves out what does not vary. With that ridge put into ours, nothing but the
digits of float32 remains, and in float64 nothing.
"""

import pytest
import torch
from _dummies import images, network
from scipy.stats import spearmanr

from gradbench.backbones.backbone import Backbone
from gradbench.methods.base import Samples
from gradbench.methods.gaussians import Gaussians
from gradbench.methods.mahalanobis import MahalanobisV
from gradbench.methods.rmds import RMDS
from gradbench.outputs.perturbed import PerturbedPass, read_until

theirs = pytest.importorskip("pytorch_ood.detector", reason="needs the extra `test`")
NAME = "layer_means/bn3"  # before the ReLU every channel varies
NOTHING = Samples.normal({})
RIDGE = 1e-6
COUNT = 300
"""Training images."""


@pytest.fixture(scope="module")
def f():
    inner = network(width=8)
    return Backbone(inner.network, [0.4], [0.3], inner.classes, inner.shape, None, ["bn3"]).eval()


@pytest.fixture(scope="module")
def pixels():
    noise = torch.rand(90, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.cat([torch.from_numpy(images(90).images).float() / 255, noise])


@pytest.fixture(scope="module")
def bank(f):
    data = images(COUNT, seed=9)
    with torch.no_grad():
        found = read_until(f, torch.from_numpy(data.images).float() / 255, NAME)
    return {NAME: found, "features": found, "labels": torch.from_numpy(data.labels)}


@pytest.fixture(scope="module")
def queries(f, pixels):
    with torch.no_grad():
        return read_until(f, pixels, NAME)


@pytest.fixture
def double_by_default():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def covariance(gaussians: Gaussians):
    """Return what theirs inverts, before the ridge."""
    return COUNT * torch.linalg.pinv(gaussians.precision, hermitian=True)


def ridged(gaussians: Gaussians) -> Gaussians:
    """Return the Gaussians with the ridge of theirs."""
    ours = covariance(gaussians)
    precision = torch.linalg.inv(ours + RIDGE * torch.eye(len(ours), dtype=torch.float64))
    return Gaussians(gaussians.means, COUNT * precision)


def close(ours, other, rtol):
    torch.testing.assert_close(ours / COUNT, other.detach().double(), rtol=rtol, atol=0)


# Mahalanobis


@pytest.mark.parametrize("magnitude", [0.0, 0.002])
def test_mahalanobis_differs_by_the_ridge_alone(f, bank, queries, pixels, magnitude):
    bare = Backbone(f.network, [0.0], [1.0], f.classes, f.shape).eval()

    def encoder(x):
        return read_until(bare, x, NAME)

    if magnitude:
        std = f.std.flatten().tolist()
        other = theirs.MahalanobisODIN(encoder, eps=magnitude, norm_std=std)
    else:
        other = theirs.Mahalanobis(encoder)
    other.fit_features(bank[NAME], bank["labels"])
    expected = other.predict((pixels - f.mean) / f.std)
    plain = MahalanobisV().fit(bank, NOTHING, NOTHING).gaussians[NAME]

    def found(gaussians):
        if not magnitude:
            return gaussians.nearest(queries)
        return gaussians.nearest(PerturbedPass(NAME, gaussians, (magnitude,))(f, pixels)[:, 0])

    close(found(ridged(plain)), expected, rtol=3e-5)  # theirs is in float32
    # a ridge takes off a distance its share of the smallest variance at most: here 0.09 %
    most = RIDGE / torch.linalg.eigvalsh(covariance(plain))[0]
    off = 1 - expected.detach().double() / (found(plain) / COUNT)
    assert 1e-4 < most < 1e-3
    assert off.min() > -3e-5
    assert 1e-4 < off.max() < most + 3e-5
    assert spearmanr(found(plain), expected.detach()).statistic > 0.9999


@pytest.mark.usefixtures("double_by_default")
def test_mahalanobis_with_their_ridge_is_the_same_in_float64(bank, queries):
    other = theirs.Mahalanobis(None).fit_features(bank[NAME].double(), bank["labels"])
    ours = ridged(Gaussians.fit(bank[NAME], bank["labels"]))
    close(ours.nearest(queries), other.predict_features(queries.double()), rtol=1e-10)


# RMDS


def rmds(features, labels) -> RMDS:
    return RMDS().fit({"features": features, "labels": labels}, NOTHING, NOTHING)


def ridged_score(detector: RMDS, features):
    return 2 * (
        ridged(detector.classes).nearest(features) - ridged(detector.background).nearest(features)
    )


@pytest.mark.usefixtures("double_by_default")
def test_rmds_with_their_ridge_is_the_same_in_float64(bank, queries):
    other = theirs.RMD(None).fit_features(bank[NAME].double(), bank["labels"])
    expected = other.predict_features(queries.double())
    ours = rmds(bank[NAME], bank["labels"])
    close(ridged_score(ours, queries), expected, rtol=1e-9)
    plain = ours.score({"features": queries})
    assert spearmanr(plain, expected).statistic > 0.9999
    # of each of its two distances the ridge takes off a share as above
    most = RIDGE / torch.linalg.eigvalsh(covariance(ours.classes))[0]
    off = (plain / COUNT - expected).abs() / (2 * ours.classes.nearest(queries) / COUNT)
    assert 1e-6 < off.max() < 2 * most
