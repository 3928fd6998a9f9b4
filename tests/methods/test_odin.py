"""ODIN against its formula, another implementation, and a loop over all settings."""

import numpy as np
import pytest
import torch
from _dummies import images, network
from _scored_images import score_images
from scipy.special import expit
from scipy.stats import spearmanr
from torch import nn

from gradbench.backbones.backbone import Backbone
from gradbench.errors import GradbenchError
from gradbench.methods.base import PassCount, Samples
from gradbench.methods.odin import Odin, OdinFixed, TopClass, odin_score
from gradbench.methods.tuning import best_setting, tnr_at_95_tpr
from gradbench.outputs.perturbed import PerturbedPass, gradient_signs


def pixels(count: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(images(count, seed).images).float() / 255


def logits_of(f, x):
    with torch.no_grad():
        return f(x)


@pytest.mark.parametrize("temperature", [1, 1000])
def test_the_score_is_the_log_odds_of_the_largest_probability(temperature):
    logits = 30 * torch.randn(50, 7, generator=torch.Generator().manual_seed(0)).double()
    exps = np.exp((logits - logits.amax(1, keepdim=True)).numpy() / temperature)
    p = exps.max(1) / exps.sum(1)
    np.testing.assert_allclose(expit(-odin_score(logits, temperature).numpy()), p, rtol=1e-12)


def test_saturated_logits_do_not_tie():
    scores = odin_score(torch.tensor([[900.0, 0.0], [901.0, 0.0], [3e38, -3e38]]), 1)
    assert scores[:2].tolist() == [-900, -901]
    assert scores[2] < -1e38
    assert torch.isfinite(scores).all()


@pytest.mark.parametrize("temperature", [1.0, 1000.0])
def test_the_gradient_is_that_of_the_cross_entropy_up_to_a_factor(temperature):
    logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(1)).double()
    logits.requires_grad_()
    loss = nn.functional.cross_entropy(logits / temperature, logits.argmax(1), reduction="sum")
    (gradient,) = torch.autograd.grad(loss, logits)
    found = TopClass(temperature).gradient(logits.detach())
    factor = gradient.amin(1, keepdim=True).abs()
    torch.testing.assert_close(found * factor, gradient, rtol=1e-10, atol=1e-15)


def test_a_saturated_network_still_has_a_direction():
    """Cross entropy in float32 has no gradient left here, and would step to +1 everywhere."""
    f, x = network(), pixels(6)
    with torch.no_grad():
        f.network.fc.weight.mul_(1e4)
        f.network.fc.bias.mul_(1e4)
    pulled = x.clone().requires_grad_()
    z = f(pulled)
    (plain,) = torch.autograd.grad(nn.functional.cross_entropy(z, z.argmax(1)), pulled)
    assert (plain == 0).all()
    found = gradient_signs(f, x, "logits", TopClass(1.0))
    exact = network().double()
    exact.load_state_dict(f.state_dict())
    assert (
        gradient_signs(exact, x.double(), "logits", TopClass(1.0)) == found
    ).double().mean() > 0.99
    assert (found == -1).any()


@pytest.mark.parametrize(("temperature", "magnitude"), [(1, 0.002), (1000, 0.0014), (100, 0.1)])
def test_it_agrees_with_pytorch_ood(temperature, magnitude):
    theirs = pytest.importorskip("pytorch_ood.detector").ODIN
    f, x = network(width=8), pixels(60)
    bare = Backbone(f.network, [0.0], [1.0], f.classes, f.shape).eval()
    std = f.std.flatten().tolist()
    other = theirs(bare, eps=magnitude, temperature=temperature, norm_std=std)
    expected = other.predict((x - f.mean) / f.std).detach().double()
    found = score_images(OdinFixed(temperature, magnitude), f, x)
    np.testing.assert_allclose(-expit(-found.numpy()), expected, rtol=2e-5)
    assert spearmanr(found, expected).statistic > 0.9999


def samples(f, normal, abnormal) -> Samples:
    x = torch.cat([normal, abnormal])
    return Samples(
        {"logits": logits_of(f, x)},
        torch.arange(len(x)) >= len(normal),
        torch.arange(len(x)),
        lambda what, rows: what(f, x[rows]),
    )


def test_the_setting_with_the_best_tnr_is_chosen():
    f = network(width=8)
    normal, abnormal = pixels(60), torch.rand(60, 1, 8, 8)
    choose = samples(f, normal, abnormal)
    settings = {"temperatures": (1, 100), "magnitudes": (0, 0.01, 0.1)}
    detector = Odin(**settings).fit({}, choose, choose)
    worth = {}
    for t in settings["temperatures"]:
        for m in settings["magnitudes"]:
            if (t, m) == (1, 0):
                continue
            scores = score_images(OdinFixed(t, m), f, torch.cat([normal, abnormal])).numpy()
            worth[t, m] = tnr_at_95_tpr(scores, choose.abnormal.numpy())
    chosen = detector.temperature, detector.magnitude
    assert worth[chosen] == max(worth.values())
    assert len(set(worth.values())) > 1
    torch.testing.assert_close(
        score_images(detector, f, normal), score_images(OdinFixed(*chosen), f, normal)
    )


def test_without_a_step_the_logits_are_enough():
    f, x = network(), pixels()
    detector = Odin(temperatures=(1000,), magnitudes=(0,)).fit(
        {}, samples(f, x, x), samples(f, x, x)
    )
    assert detector.perturbed_passes == {}
    assert detector.reads == ("logits",)
    torch.testing.assert_close(
        score_images(detector, f, x), odin_score(logits_of(f, x), 1000), rtol=1e-4, atol=1e-6
    )


def test_passes_an_image():
    assert OdinFixed().pass_count == PassCount(forward=2, backward=1)
    assert OdinFixed(magnitude=0).pass_count == PassCount(forward=1, backward=0)


def test_one_pass_for_all_steps_of_a_temperature():
    f, asked = network(), []
    choose = samples(f, pixels(), torch.rand(40, 1, 8, 8))
    plain = choose.passes

    def noted(what, rows):
        asked.append(what)
        return plain(what, rows)

    Odin().fit({}, choose, Samples(choose.outputs, choose.abnormal, choose.order, noted))
    assert [what.loss.temperature for what in asked] == [1, 10, 100, 1000]
    assert all(len(what.magnitudes) == 10 for what in asked)


def test_tnr_at_95_tpr_by_hand():
    normal = np.arange(20.0)  # 19 of 20 lie at or below 18
    abnormal = np.array([18.0, 18.5, 17, 30])
    labels = np.arange(24) >= 20
    assert tnr_at_95_tpr(np.concatenate([normal, abnormal]), labels) == 0.5
    assert tnr_at_95_tpr(np.zeros(24), labels) == 0.0


def test_of_equal_tnr_the_better_auroc_then_the_first():
    labels = torch.arange(40) >= 20
    perfect = labels.double()
    almost = torch.cat([torch.arange(20.0), torch.full((20,), 50.0)])
    worse = torch.cat([torch.arange(20.0), torch.full((20,), 18.5)])  # TNR 1, AUROC below 1
    assert best_setting([("a", worse), ("b", almost), ("c", perfect)], labels) == "b"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"temperatures": [0]}, "above 0"),
        ({"temperatures": []}, "temperatures="),
        ({"magnitudes": [-0.1]}, "magnitudes=.* from 0"),
        ({"magnitudes": ["x"]}, "magnitudes="),
        ({"drawn": 5}, "drawn=5: a whole number, at least 20"),
        ({"temperatures": [1], "magnitudes": [0]}, "is msp"),
    ],
)
def test_settings_out_of_range_are_refused(settings, text):
    with pytest.raises(GradbenchError, match=text):
        Odin(**settings)


def test_one_class_is_refused():
    with pytest.raises(GradbenchError, match="two classes"):
        odin_score(torch.ones(3, 1), 1)
    f = network(classes=1)
    with pytest.raises(GradbenchError, match="two classes"):
        PerturbedPass("logits", TopClass(1.0), (0.1,))(f, pixels(3))
