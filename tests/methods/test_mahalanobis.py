"""Mahalanobis distances against scikit-learn, another implementation and known answers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from _dummies import images, network
from _scored_images import score_images
from sklearn.covariance import EmpiricalCovariance

from gradbench.errors import GradbenchError
from gradbench.methods.base import PassCount, Samples
from gradbench.methods.gaussians import Gaussians
from gradbench.methods.mahalanobis import (
    MahalanobisFE,
    MahalanobisP,
    MahalanobisPFE,
    MahalanobisV,
)
from gradbench.methods.regression import Regression
from gradbench.methods.tuning import tnr_at_95_tpr
from gradbench.outputs.perturbed import PerturbedPass
from gradbench.outputs.read import read_outputs


def clouds(count: int = 400, features: int = 6, seed: int = 0):
    """Return (N, D) float64 features of four classes with one correlated covariance."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    spread = torch.randn(features, features, generator=draw, dtype=torch.float64)
    means = 3 * torch.randn(4, features, generator=draw, dtype=torch.float64)
    noise = torch.randn(count, features, generator=draw, dtype=torch.float64)
    return means[labels] + noise @ spread, labels


# the Gaussians


def test_means_and_covariance_are_those_of_scikit_learn():
    features, labels = clouds()
    found = Gaussians.fit(features, labels)
    centred = features.numpy().copy()
    for c in range(4):
        mean = features[labels == c].mean(0)
        torch.testing.assert_close(found.means[c], mean)
        centred[(labels == c).numpy()] -= mean.numpy()
    expected = EmpiricalCovariance(assume_centered=True).fit(centred)
    np.testing.assert_allclose(found.precision, expected.precision_, rtol=1e-8)
    query, _ = clouds(seed=1)
    for c in range(4):
        moved = (query - found.means[c]).numpy()
        half = 0.5 * expected.mahalanobis(moved)
        np.testing.assert_allclose(found.distances(query)[:, c], half, rtol=1e-8)
    torch.testing.assert_close(found.nearest(query), found.distances(query).amin(1))


def test_an_invertible_linear_map_of_the_features_changes_nothing():
    features, labels = clouds()
    query, _ = clouds(seed=1)
    draw = torch.Generator().manual_seed(3)
    turn = torch.randn(6, 6, generator=draw, dtype=torch.float64)
    turn *= torch.logspace(-3, 3, 6, dtype=torch.float64)  # of very unequal scales
    shift = torch.randn(6, generator=draw, dtype=torch.float64)
    plain = Gaussians.fit(features, labels).distances(query)
    mapped = Gaussians.fit(features @ turn + shift, labels).distances(query @ turn + shift)
    torch.testing.assert_close(mapped, plain, rtol=1e-6, atol=1e-8)


def test_a_known_answer():
    features = torch.tensor(
        [[-1.0, 0], [1, 0], [9, 2], [11, -2], [9, -2], [11, 2], [0, 2], [0, -2]]
    )
    labels = torch.tensor([0, 0, 7, 7, 7, 7, 0, 0])  # class numbers need not be 0 to C - 1
    found = Gaussians.fit(features, labels)
    assert found.means.tolist() == [[0, 0], [10, 0]]
    # variances: (2 + 4) / 8 and (8 + 16) / 8
    torch.testing.assert_close(
        found.precision, torch.tensor([[4 / 3, 0], [0, 1 / 3]], dtype=torch.float64)
    )
    assert found.nearest(torch.tensor([[3.0, 0], [10, 3]])).tolist() == pytest.approx([6, 1.5])


def test_constant_and_doubled_features_carry_nothing():
    features, labels = clouds()
    padded = torch.cat([features, torch.full((400, 1), 0.1), features[:, :1]], 1)
    plain, other = Gaussians.fit(features, labels), Gaussians.fit(padded, labels)
    torch.testing.assert_close(other.nearest(padded), plain.nearest(features), rtol=1e-6, atol=1e-8)


def test_the_gradient_is_that_of_the_distance_to_the_nearest_class():
    gaussians = Gaussians.fit(*clouds())
    query = clouds(50, seed=1)[0].requires_grad_()
    (expected,) = torch.autograd.grad(gaussians.nearest(query).sum(), query)
    torch.testing.assert_close(gaussians.gradient(query.detach()), expected)


def test_the_digest_is_of_the_content():
    one, same = (Gaussians.fit(*clouds()).settings() for _ in range(2))
    assert one == same
    assert Gaussians.fit(*clouds(seed=1)).settings() != one


# the detectors


def pixels(count: int = 90, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(images(count, seed).images).float() / 255


def noise(count: int = 90, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def f():
    return network(width=8)


@pytest.fixture(scope="module")
def bank(f):
    data = images(300, seed=9)
    outputs = read_outputs(f, torch.from_numpy(data.images).float() / 255, ["layer_means"])
    return outputs | {"labels": torch.from_numpy(data.labels)}


def samples(f, seed: int, count: int = 90) -> Samples:
    x = torch.cat([pixels(count, seed), noise(count, seed)])
    return Samples(
        read_outputs(f, x, ["layer_means"]),
        torch.arange(len(x)) >= count,
        torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)),
        lambda what, rows: what(f, x[rows]),
    )


def test_v_looks_at_the_last_layer_alone(f, bank):
    detector = MahalanobisV().fit(bank, samples(f, 1), samples(f, 1))
    assert detector.reads == ("layer_means/stage3",)
    expected = Gaussians.fit(bank["layer_means/stage3"], bank["labels"])
    outputs = read_outputs(f, pixels(), ["layer_means"])
    assert torch.equal(detector.score(outputs), expected.nearest(outputs["layer_means/stage3"]))
    assert detector.pass_count == PassCount(1, 0)


def test_fe_is_a_regression_on_the_distances_of_all_layers(f, bank):
    fit = samples(f, 1)
    detector = MahalanobisFE().fit(bank, fit, samples(f, 2))

    def distances(outputs):
        layers = [f"layer_means/stage{i}" for i in (1, 2, 3)]
        fitted = [Gaussians.fit(bank[n], bank["labels"]).nearest(outputs[n]) for n in layers]
        return torch.stack(fitted, 1)

    regression = Regression().fit(distances(fit.outputs), fit.abnormal)
    outputs = read_outputs(f, pixels(), ["layer_means"])
    assert torch.equal(detector.score(outputs), regression(distances(outputs)))


@pytest.mark.parametrize("kind", [MahalanobisP, MahalanobisPFE])
def test_the_step_moves_towards_the_nearest_class(f, bank, kind):
    detector = kind(magnitudes=(0.01,)).fit(bank, samples(f, 1), samples(f, 2))
    x = pixels()
    assert list(detector.perturbed_passes)[-1] == "layer_means/stage3"
    for name, what in detector.perturbed_passes.items():
        gaussians = detector.gaussians[name]
        before, after = read_outputs(f, x, [name])[name], what(f, x)[:, 0]
        assert (gaussians.nearest(after) < gaussians.nearest(before)).double().mean() > 0.95
    layers = len(detector.perturbed_passes)
    assert layers == (1 if kind is MahalanobisP else 3)
    assert detector.pass_count == PassCount(2 * layers, layers)


@pytest.mark.parametrize("kind", [MahalanobisP, MahalanobisPFE])
def test_without_a_step_the_variant_is_the_one_without(f, bank, kind):
    fit, choose = samples(f, 1), samples(f, 2)
    plain = {MahalanobisP: MahalanobisV, MahalanobisPFE: MahalanobisFE}[kind]()
    detector = kind(magnitudes=(0,)).fit(bank, fit, choose)
    x = pixels()
    assert detector.perturbed_passes == {}
    torch.testing.assert_close(
        score_images(detector, f, x), score_images(plain.fit(bank, fit, choose), f, x)
    )


def test_p_chooses_the_step_with_the_best_tnr_on_choose(f, bank):
    choose = samples(f, 2)
    near = torch.cat([pixels(90, 2), (pixels(90, 3) + 0.08 * noise(90, 2)).clamp(0, 1)])
    choose = replace(
        choose,
        outputs=read_outputs(f, near, ["layer_means"]),
        passes=lambda what, rows: what(f, near[rows]),
    )
    grid = (0.1, 0.03, 0.0)
    worth = {}
    for m in grid:
        one = MahalanobisP(magnitudes=(m,)).fit(bank, choose, choose)
        scores = score_images(one, f, near).numpy()
        worth[m] = tnr_at_95_tpr(scores, choose.abnormal.numpy())
    assert len(set(worth.values())) == 3
    for order in (grid, grid[::-1]):
        chosen = MahalanobisP(magnitudes=order).fit(bank, choose, choose).magnitude
        assert chosen == max(worth, key=worth.get)


def test_pfe_fits_its_regression_on_few_and_then_on_more(f, bank, monkeypatch):
    sizes = []
    fit = Regression.fit

    def noted(self, scores, abnormal, seed=0, strength=None):
        sizes.append((len(scores), int(abnormal.sum())))
        return fit(self, scores, abnormal, seed, strength)

    monkeypatch.setattr(Regression, "fit", noted)
    MahalanobisPFE(magnitudes=(0.001, 0.002), drawn=30).fit(bank, samples(f, 1), samples(f, 2))
    assert sizes == [(60, 30), (60, 30), (180, 90)]


@pytest.mark.parametrize(
    ("settings", "text"),
    [({"magnitudes": []}, "magnitudes="), ({"drawn": 0}, "drawn=0: a whole number, at least 20")],
)
@pytest.mark.parametrize("kind", [MahalanobisP, MahalanobisPFE])
def test_settings_out_of_range_are_refused(kind, settings, text):
    with pytest.raises(GradbenchError, match=text):
        kind(**settings)


def test_passes_are_kept_by_the_content_of_the_statistics(f, bank):
    other = {**bank, "labels": bank["labels"].flip(0)}
    losses = [
        MahalanobisP(magnitudes=(0.01,))
        .fit(given, samples(f, 1), samples(f, 2))
        .perturbed_passes["layer_means/stage3"]
        for given in (bank, bank, other)
    ]
    digests = [what.loss.settings() for what in losses]
    assert all(isinstance(what, PerturbedPass) for what in losses)
    assert digests[0] == digests[1] != digests[2]


# the regression


def test_the_regression_is_that_of_scikit_learn_on_standardised_scores():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    draw = np.random.default_rng(0)
    abnormal = np.arange(400) >= 250
    scores = draw.normal(size=(400, 3)) * [1, 100, 1e-3] + abnormal[:, None] * [0.5, 80, 0]
    found = Regression().fit(torch.from_numpy(scores), torch.from_numpy(abnormal))
    logits = found(torch.from_numpy(scores)).numpy()
    fits = []
    for strength in np.logspace(-4, 4, 10):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength))
        fits.append(np.abs(model.fit(scores, abnormal).decision_function(scores) - logits).max())
    assert min(fits) < 1e-2
    plain = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, tol=1e-8)).fit(
        scores, abnormal
    )
    own = Regression().fit(torch.from_numpy(scores), torch.from_numpy(abnormal), strength=0.5)
    np.testing.assert_allclose(
        own(torch.from_numpy(scores)), plain.decision_function(scores), rtol=1e-3, atol=1e-4
    )


def test_the_regression_is_finite_where_sides_part_perfectly_or_scores_are_constant():
    abnormal = torch.arange(60) >= 40
    scores = torch.stack([abnormal.double() * 1e3, torch.ones(60).double()], 1)
    logits = Regression().fit(scores, abnormal)(scores)
    assert torch.isfinite(logits).all()
    assert ((logits > 0) == abnormal).all()
