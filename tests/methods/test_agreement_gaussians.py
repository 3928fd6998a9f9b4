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


def with_unit(values, unit):
    """Append a unit to features."""
    return torch.cat([values, torch.as_tensor(unit).to(values).expand(len(values))[:, None]], 1)


def test_mahalanobis_differs_where_a_unit_is_dead(bank, queries):
    """Their ridge makes the smallest value of a dead unit far; ours leaves it out."""
    dead, labels = with_unit(bank[NAME], 0.0), bank["labels"]
    other = theirs.Mahalanobis(None).fit_features(dead, labels)
    ours = Gaussians.fit(dead, labels)
    silent, speaking = with_unit(queries, 0.0), with_unit(queries, 0.1)
    assert torch.equal(ours.nearest(speaking), ours.nearest(silent))
    torch.testing.assert_close(
        other.predict_features(speaking) - other.predict_features(silent),
        torch.full((len(queries),), 0.5 * 0.1**2 / RIDGE),
        rtol=1e-3,
        atol=0,
    )


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


def their_distances(other, features):
    """Return the two squared distances that theirs takes the difference of."""
    return other._calc_gaussian_scores(features).amin(1), other._background_score(features)


@pytest.mark.usefixtures("double_by_default")
def test_rmds_of_a_dead_unit_cancels_in_float64(bank, queries):
    """Both of their distances have the same ridge where nothing varies: the difference has none."""
    dead, labels = with_unit(bank[NAME], 0.0), bank["labels"]
    ours, other = rmds(dead, labels), theirs.RMD(None).fit_features(dead.double(), labels)
    silent, speaking = with_unit(queries, 0.0), with_unit(queries, 1.0)
    before, after = (their_distances(other, part.double()) for part in (silent, speaking))
    for one, two in zip(before, after):
        torch.testing.assert_close(two - one, torch.full_like(one, 1 / RIDGE))
    plain = ours.score({"features": silent})
    assert torch.equal(ours.score({"features": speaking}), plain)
    close(ridged_score(ours, silent), other.predict_features(silent.double()), rtol=1e-9)
    torch.testing.assert_close(
        other.predict_features(speaking.double()),
        other.predict_features(silent.double()),
        rtol=0,
        atol=1e-8,
    )


def test_rmds_of_a_dead_unit_loses_its_digits_in_float32(bank, queries):
    """They compare 1e6 with 1e6, in steps of 1/16, for scores around 1; ours sees no such unit."""
    dead, labels = with_unit(bank[NAME], 0.0), bank["labels"]
    ours, other = rmds(dead, labels), theirs.RMD(None).fit_features(dead, labels)
    silent, speaking = with_unit(queries, 0.0), with_unit(queries, 1.0)
    right = ours.score({"features": silent})
    assert torch.equal(ours.score({"features": speaking}), right)
    assert spearmanr(other.predict_features(silent), right).statistic > 0.9999
    lost = other.predict_features(speaking)
    assert len(lost.unique()) < len(lost) / 3  # 12 values for 180 images
    assert spearmanr(lost, right).statistic < 0.95  # 0.83


@pytest.mark.usefixtures("double_by_default")
def test_rmds_differs_where_a_unit_varies_between_classes_alone(bank, queries):
    """Their ridge makes a value between the classes far; for ours no class sees it.

    The Gaussian of all images does see it, in both.
    """
    labels = bank["labels"]
    bound = with_unit(bank[NAME], (labels == 0).double())
    ours, other = rmds(bound, labels), theirs.RMD(None).fit_features(bound.double(), labels)
    between = with_unit(queries, 0.5)
    class_distance, background = their_distances(other, between.double())
    close(2 * ridged(ours.background).nearest(between), background, rtol=1e-9)
    assert class_distance.min() > 0.5**2 / RIDGE  # 250,000, where ours have at most 4
    assert ours.classes.nearest(between).max() / COUNT < 4
    assert torch.equal(ours.classes.nearest(between), ours.classes.nearest(with_unit(queries, 0)))
    close(ridged_score(ours, between), other.predict_features(between.double()), rtol=1e-6)
