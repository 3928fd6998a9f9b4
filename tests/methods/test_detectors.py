"""Each detector against its formula, and the parts that they share."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from gradbench.errors import GradbenchError
from gradbench.methods import gradient_logistic as logistic_module
from gradbench.methods.base import Samples
from gradbench.methods.gradient import Gradient
from gradbench.methods.gradient_logistic import GradientLogistic
from gradbench.methods.gradient_norms import Normaliser
from gradbench.methods.msp import MSP, msp_score
from gradbench.methods.tuning import rank_auroc

NAME = "squared_norms/ones/bce"


def norms(count: int, shift: float, seed: int, features: int = 6) -> dict[str, torch.Tensor]:
    """Return log-normal squared norms; the first two columns know the shift."""
    values = np.random.default_rng(seed).normal(size=(count, features))
    values[:, :2] += shift
    return {NAME: torch.from_numpy(np.exp(3 * values) * 1e-4).float()}


def samples(seed: int, shift: float = 1.0, count: int = 300) -> Samples:
    return Samples.join(norms(count, 0, seed), norms(count // 2, shift, seed + 1))


# MSP


def test_msp_is_minus_the_largest_softmax():
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) * 5
    exps = np.exp(logits.double().numpy())
    np.testing.assert_allclose(msp_score(logits), -exps.max(1) / exps.sum(1), rtol=1e-12)


def test_msp_tells_saturated_logits_apart():
    scores = msp_score(torch.tensor([[20.0, 0.0], [25.0, 0.0], [30.0, 0.0]]))
    assert scores[0] > scores[1] > scores[2]
    assert scores[0].item() == pytest.approx(-1 + np.exp(-20), abs=1e-15)
    huge = msp_score(torch.tensor([[3e38, -3e38], [0.0, 0.0]]))
    assert huge.tolist() == [-1.0, -0.5]


# shared parts


def test_join_puts_normal_images_first():
    joined = Samples.join({"a": torch.zeros(3, 2)}, {"a": torch.ones(2, 2)})
    assert joined.abnormal.tolist() == [False] * 3 + [True] * 2
    assert torch.equal(joined.outputs["a"][:, 0], torch.tensor([0.0, 0, 0, 1, 1]))


def test_log_standard():
    values = norms(500, 0, 0)[NAME]
    features = Normaliser("log_standard").fit(values)(values)
    assert features.dtype == torch.float32
    logs = np.log(values.double().numpy() + 1e-12)
    np.testing.assert_allclose(features, (logs - logs.mean(0)) / logs.std(0), atol=1e-6)


def test_standard_and_none():
    values = norms(500, 0, 0)[NAME]
    plain = values.double().numpy()
    standard = Normaliser("standard").fit(values)(values)
    np.testing.assert_allclose(standard, (plain - plain.mean(0)) / plain.std(0), atol=1e-5)
    assert torch.equal(Normaliser("none").fit(values)(values), values)


def test_new_images_are_normalised_with_the_fitted_numbers():
    normaliser = Normaliser().fit(norms(500, 0, 0)[NAME])
    moved = normaliser(norms(500, 1.0, 1)[NAME]).mean(0)
    assert moved[:2].tolist() == pytest.approx([1, 1], abs=0.25)
    assert moved[2:].abs().max() < 0.25


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e-5])
@pytest.mark.parametrize("how", ["log_standard", "standard"])
def test_a_constant_column_is_not_blown_up(constant, how):
    normaliser = Normaliser(how).fit(torch.full((1000, 1), constant))
    assert normaliser.std.item() == 1
    assert abs(normaliser(torch.full((1, 1), constant)).item()) < 1e-6
    assert abs(normaliser(torch.full((1, 1), constant + 1.0)).item()) < 100


def test_normaliser_refuses_another_way():
    with pytest.raises(GradbenchError, match="normalisation=log: choose log_standard, standard"):
        Normaliser("log")


def test_rank_auroc_is_scikit_learns_with_ties():
    rng = np.random.default_rng(0)
    abnormal = rng.random(400) < 0.3
    for scores in (rng.normal(size=400) + abnormal, rng.integers(0, 4, 400) + abnormal):
        assert rank_auroc(scores, abnormal) == pytest.approx(roc_auc_score(abnormal, scores))
    assert rank_auroc(np.zeros(400), abnormal) == 0.5
    assert rank_auroc(abnormal.astype(float), abnormal) == 1


# the supervised ones


def auroc(detector, seed=50, shift=1.0) -> float:
    held = samples(seed, shift, 2000)
    return rank_auroc(detector.score(held.outputs).numpy(), held.abnormal.numpy())


@pytest.mark.parametrize("kind", [Gradient, GradientLogistic])
def test_near_the_best_possible_auroc(kind):
    """Two normal columns shifted by 1: no detector has more than Phi(1)."""
    detector = kind().fit({}, samples(0), samples(10))
    assert norm.cdf(1) - 0.05 < auroc(detector) < norm.cdf(1) + 0.02


@pytest.mark.parametrize("kind", [Gradient, GradientLogistic])
def test_nothing_is_found_where_nothing_is(kind):
    detector = kind().fit({}, samples(0, 0.0), samples(10, 0.0))
    assert abs(auroc(detector, shift=0.0) - 0.5) < 0.05


@pytest.mark.parametrize("kind", [Gradient, GradientLogistic])
def test_both_classes_weigh_alike(kind):
    lopsided = Samples.join(norms(600, 0, 0), norms(60, 1.5, 1))
    detector = kind().fit({}, lopsided, samples(10, 1.5))
    wrong = (detector.score(norms(2000, 0, 7)) > 0).double().mean().item()
    missed = (detector.score(norms(2000, 1.5, 8)) <= 0).double().mean().item()
    assert abs(wrong - missed) < 0.1


def test_the_label_and_loss_are_in_what_is_read():
    for kind in (Gradient, GradientLogistic):
        assert kind("zeros", "mse").reads == ("squared_norms/zeros/mse",)
    assert MSP().reads == ("logits",)


def test_gradient_differs_between_seeds():
    first, other = (Gradient(epochs=3).fit({}, samples(0), samples(10), seed) for seed in (0, 1))
    assert not torch.equal(first.score(norms(5, 0, 3)), other.score(norms(5, 0, 3)))


def test_gradient_logistic_keeps_the_strength_with_the_best_auroc_on_choose(monkeypatch):
    fit, choose = samples(0), samples(10)
    features = Normaliser().fit(fit.outputs[NAME])(fit.outputs[NAME]).numpy()
    best = LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000)
    best.fit(features, fit.abnormal.numpy())
    values = iter([0.6, 0.9, 0.9])
    monkeypatch.setattr(logistic_module, "rank_auroc", lambda scores, abnormal: next(values))
    detector = GradientLogistic(grid=(0.01, 0.1, 1.0)).fit({}, fit, choose)
    np.testing.assert_allclose(detector.weight, best.coef_[0], rtol=1e-8)
    np.testing.assert_allclose(detector.bias, best.intercept_[0], rtol=1e-8)


@pytest.mark.parametrize("kind", [Gradient, GradientLogistic])
def test_choose_decides_on_real_numbers_too(kind):
    """Turn choose round, and another epoch or strength is best."""
    fit, choose = samples(0), samples(10)
    turned = Samples(choose.outputs, ~choose.abnormal)
    first, other = kind().fit({}, fit, choose), kind().fit({}, fit, turned)
    assert not torch.equal(first.score(norms(9, 0, 3)), other.score(norms(9, 0, 3)))


@pytest.mark.parametrize("grid", [(), (0.0,), (1.0, -1.0)])
def test_gradient_logistic_refuses_a_grid(grid):
    with pytest.raises(GradbenchError, match="grid="):
        GradientLogistic(grid=grid)


@pytest.mark.parametrize("kind", [Gradient, GradientLogistic])
def test_another_normalisation_is_refused(kind):
    with pytest.raises(GradbenchError, match="normalisation=log"):
        kind(normalisation="log")


def test_golden_scores():
    # if this fails, raise the detector's version
    assert (MSP.version, Gradient.version, GradientLogistic.version) == (1, 1, 1)
    scored = norms(3, 0.5, 3)
    h = Gradient(epochs=5).fit({}, samples(0), samples(10))
    assert h.score(scored).tolist() == pytest.approx([-0.126642, 0.0189798, -0.239951], abs=2e-3)
    linear = GradientLogistic().fit({}, samples(0), samples(10))
    assert linear.score(scored).tolist() == pytest.approx(
        [-0.296485, -0.986778, -0.889789], abs=2e-3
    )
    logits = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    assert msp_score(logits).tolist() == pytest.approx([-0.6652409557748219, -1 / 3], rel=1e-12)
