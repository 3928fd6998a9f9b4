"""Detectors of the frontier against their formulas, one image at a time, and known answers."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gradbench.errors import GradbenchError
from gradbench.methods import gradpca
from gradbench.methods.ash import ASH
from gradbench.methods.base import Samples
from gradbench.methods.fdbd import FDBD
from gradbench.methods.fisher_trace import FisherTrace
from gradbench.methods.gen import GEN
from gradbench.methods.gradpca import GradPCA
from gradbench.methods.nci import NCI
from gradbench.methods.scale import Scale

NOTHING = Samples.normal({})


@pytest.fixture(scope="module")
def given():
    """Return (bank, outputs) of 40 features and 7 classes."""
    draw = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(7, 40, generator=draw), torch.randn(7, generator=draw)

    def outputs(count):
        features = torch.rand(count, 40, generator=draw)
        return {"features": features, "logits": features @ weight.T + bias}

    return outputs(200) | {"head/weight": weight, "head/bias": bias}, outputs(30)


def arrays(given):
    """Return in float64: bank features, weight, bias, and features and logits of each image."""
    bank, outputs = given
    names = ("features", "head/weight", "head/bias")
    rows = zip(outputs["features"].double().numpy(), outputs["logits"].double().numpy())
    return *(bank[name].double().numpy() for name in names), list(rows)


def compare(detector, given, expected, rtol=1e-10):
    bank, outputs = given
    found = detector.fit(bank, NOTHING, NOTHING).score(outputs)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=rtol)


@pytest.mark.parametrize("top", [1, 3, 100])
def test_gen_is_its_formula(given, top):
    *_, rows = arrays(given)
    expected = []
    for _, logits in rows:
        p = np.sort(np.exp(logits) / np.exp(logits).sum())[-top:]
        expected.append((p**0.1 * (1 - p) ** 0.1).sum())
    compare(GEN(top=top), given, expected)


def test_gen_of_equal_and_of_sure_logits():
    assert GEN(gamma=1).score({"logits": torch.zeros(1, 4)}).item() == pytest.approx(4 * 3 / 16)
    sure = GEN().score({"logits": torch.tensor([[60.0, 0.0], [90.0, 0.0]])})
    assert sure.tolist() == pytest.approx([2 * math.exp(-6), 2 * math.exp(-9)])


def test_fdbd_is_its_formula(given):
    bank, weight, _, rows = arrays(given)
    expected = []
    for features, logits in rows:
        best = logits.argmax()
        others = [c for c in range(7) if c != best]
        away = [(logits[best] - logits[c]) / np.linalg.norm(weight[best] - weight[c])
                for c in others]  # fmt: skip
        expected.append(-np.mean(away) / np.linalg.norm(features - bank.mean(0)))
    compare(FDBD(), given, expected)


def test_fdbd_is_the_distance_to_the_point_where_the_classes_tie():
    """Two classes, boundary x = 1 in the plane: from (4, 0) it is 3 away, the mean is 5 away."""
    bank = {"features": torch.tensor([[0.0, 3.0], [0.0, 3.0]]),
            "head/weight": torch.tensor([[2.0, 0.0], [0.0, 0.0]])}  # fmt: skip
    outputs = {"features": torch.tensor([[4.0, 0.0]]), "logits": torch.tensor([[8.0, 2.0]])}
    assert FDBD().fit(bank, NOTHING, NOTHING).score(outputs).item() == pytest.approx(-3 / 5)


def test_fdbd_of_classes_with_the_same_weights_and_at_the_mean():
    bank = {"features": torch.ones(2, 2), "head/weight": torch.ones(2, 2)}
    outputs = {"features": torch.ones(1, 2), "logits": torch.tensor([[3.0, 2.0]])}
    assert FDBD().fit(bank, NOTHING, NOTHING).score(outputs).item() == 0


@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_nci_is_its_formula(given, alpha):
    bank, weight, _, rows = arrays(given)
    expected = []
    for features, logits in rows:
        away = features - bank.mean(0)
        near = weight[logits.argmax()] @ away / np.linalg.norm(away)
        expected.append(-near - alpha * np.abs(features).sum())
    compare(NCI(alpha), given, expected)


def test_nci_of_features_along_the_weights():
    bank = {"features": torch.zeros(2, 2), "head/weight": torch.tensor([[3.0, 4.0], [0.0, 1.0]])}
    outputs = {"features": torch.tensor([[6.0, 8.0]]), "logits": torch.tensor([[50.0, 8.0]])}
    found = NCI(alpha=0.5).fit(bank, NOTHING, NOTHING).score(outputs)
    assert found.item() == pytest.approx(-(5 + 0.5 * 14))


@pytest.mark.parametrize("percentile", [0, 30, 85, 99.9])
@pytest.mark.parametrize("kind", [ASH, Scale])
def test_ash_and_scale_are_their_formulas(given, kind, percentile):
    _, weight, bias, rows = arrays(given)
    kept = max(40 - round(0.4 * percentile), 1)
    expected = []
    for features, _ in rows:
        top = np.argsort(features)[-kept:]
        pruned = np.zeros(40)
        pruned[top] = features[top]
        shaped = (pruned if kind is ASH else features) * np.exp(features.sum() / pruned.sum())
        expected.append(-np.logaddexp.reduce(weight @ shaped + bias))
    compare(kind(percentile), given, expected, rtol=1e-9)


def test_ash_and_scale_of_one_feature_in_two():
    """Two features, 3 and 1, the larger is kept: both are times exp(4 / 3), ASH drops the 1."""
    head = {"head/weight": torch.tensor([[1.0, 1.0]]), "head/bias": torch.zeros(1)}
    outputs = {"features": torch.tensor([[3.0, 1.0]])}
    for kind, total in ((ASH, 3), (Scale, 4)):
        found = kind(percentile=50).fit(head, NOTHING, NOTHING).score(outputs)
        assert found.item() == pytest.approx(-total * math.exp(4 / 3))


@pytest.mark.parametrize("kind", [ASH, Scale])
def test_ash_and_scale_without_an_active_feature_see_the_bias_alone(kind):
    head = {"head/weight": torch.ones(2, 5), "head/bias": torch.tensor([1.0, 2.0])}
    found = kind().fit(head, NOTHING, NOTHING).score({"features": torch.zeros(1, 5)})
    assert found.item() == pytest.approx(-math.log(math.exp(1) + math.exp(2)))


@pytest.mark.parametrize("tensor", ["weight", "bias", "both"])
def test_fisher_trace_is_the_expected_squared_norm_by_autograd(given, tensor):
    bank, outputs = given
    features = outputs["features"].double()
    weight, bias = (bank[name].double().requires_grad_() for name in ("head/weight", "head/bias"))
    wanted = {"weight": [weight], "bias": [bias], "both": [weight, bias]}[tensor]
    expected = []
    for row in features:
        logs = F.log_softmax(weight @ row + bias, dim=0)
        norms = [sum(g.square().sum() for g in torch.autograd.grad(log, wanted, retain_graph=True))
                 for log in logs]  # fmt: skip
        expected.append((logs.exp() * torch.stack(norms)).sum().item())
    exact = {"features": features, "logits": (features @ weight.T + bias).detach()}
    np.testing.assert_allclose(FisherTrace(tensor).score(exact).numpy(), expected, rtol=1e-10)


def test_fisher_trace_is_the_gini_impurity_times_the_features():
    outputs = {"features": torch.tensor([[3.0, 4.0]]), "logits": torch.zeros(1, 4)}
    assert FisherTrace("bias").score(outputs).item() == pytest.approx(0.75)
    assert FisherTrace("weight").score(outputs).item() == pytest.approx(0.75 * 25)
    assert FisherTrace().score(outputs).item() == pytest.approx(0.75 * 26)


def test_gradpca_of_too_many_classes_is_refused(given, monkeypatch):
    bank = given[0] | {"labels": torch.arange(200) % 7}
    monkeypatch.setattr(gradpca, "MOST", 7 * 7 * 41 - 1)
    GradPCA("sum").fit(bank, NOTHING, NOTHING)
    with pytest.raises(GradbenchError, match="logit=max: the mean gradients of 7 classes"):
        GradPCA().fit(bank, NOTHING, NOTHING)


@pytest.mark.parametrize(
    ("kind", "settings", "told"),
    [
        (GEN, {"gamma": 0}, "gen gamma=0: a number above 0"),
        (GEN, {"top": 0}, "gen top=0: a whole number, at least 1"),
        (NCI, {"alpha": -1}, "nci alpha=-1: a number from 0"),
        (Scale, {"percentile": 100}, "scale percentile=100: from 0, below 100"),
        (ASH, {"percentile": -1}, "ash percentile=-1: from 0, below 100"),
        (GradPCA, {"logit": "min"}, "valid choices are max, sum"),
        (GradPCA, {"share": 0}, "gradpca share=0: above 0, up to 1"),
        (FisherTrace, {"tensor": "head"}, "valid choices are all, bias, both, weight"),
    ],
)
def test_settings_out_of_range_are_refused(kind, settings, told):
    with pytest.raises(GradbenchError, match=told):
        kind(**settings)


@pytest.mark.parametrize("share", [0.7, 0.99])
@pytest.mark.parametrize("logit", ["max", "sum"])
def test_gradpca_is_the_principal_space_of_mean_gradients_by_autograd(given, logit, share):
    bank, outputs = given
    weight, bias = (bank[name].double().requires_grad_() for name in ("head/weight", "head/bias"))

    def gradients(features):
        found = []
        for row in features.double():
            logits = weight @ row + bias
            value = logits.max() if logit == "max" else logits.sum()
            parts = torch.autograd.grad(value, [weight, bias])
            found.append(torch.cat([part.flatten() for part in parts]).numpy())
        return np.array(found)

    labels = torch.arange(200) % 5
    classes = [gradients(bank["features"][labels == c]).mean(0) for c in range(5)]
    centre = np.mean(classes, axis=0)
    _, sizes, directions = np.linalg.svd(classes - centre, full_matrices=False)
    kept = int(np.searchsorted((sizes**2).cumsum() / (sizes**2).sum(), share)) + 1
    away = gradients(outputs["features"]) - centre
    expected = -((away @ directions[:kept].T) ** 2).sum(1) / (away**2).sum(1)
    compare(GradPCA(logit, share), (bank | {"labels": labels}, outputs), expected, rtol=1e-8)


def test_gradpca_of_an_image_along_and_across_the_difference_of_two_classes():
    bank = {"features": torch.tensor([[1.0, 0.0], [3.0, 0.0]]), "labels": torch.tensor([0, 1]),
            "logits": torch.eye(2)}  # fmt: skip
    features = torch.tensor([[9.0, 0.0], [2.0, 5.0], [5.0, 3.0]])
    detector = GradPCA("sum").fit(bank, NOTHING, NOTHING)
    found = detector.score({"features": features, "logits": torch.ones(3, 2)})
    assert found.tolist() == pytest.approx([-1, 0, -0.5])


def test_gradpca_of_one_class_is_refused(given):
    bank, _ = given
    with pytest.raises(GradbenchError, match="two classes that f tells apart"):
        GradPCA().fit(bank | {"labels": torch.zeros(200).long()}, NOTHING, NOTHING)
