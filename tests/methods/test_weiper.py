"""WeiPer+KLD against its formula, one image at a time, and known answers."""

import math

import numpy as np
import pytest
import torch

from gradbench.errors import GradbenchError
from gradbench.methods import weiper
from gradbench.methods.base import Samples
from gradbench.methods.weiper import WeiPer, densities, divergence

NOTHING = Samples.normal({})


@pytest.fixture(scope="module")
def given():
    """Return (bank, outputs) of 40 features and 3 classes."""
    draw = torch.Generator().manual_seed(0)
    head = {
        "head/weight": torch.randn(3, 40, generator=draw),
        "head/bias": torch.randn(3, generator=draw),
    }
    sets = [torch.randn(count, 40, generator=draw).relu() for count in (50, 8)]
    return {"features": sets[0]} | head, {"features": 1.3 * sets[1]}


def histogram(values, low, high, bins):
    inside = values[(values >= low) & (values < high + 1e-8)]
    return np.histogram(inside, bins, (low, high + 1e-8))[0] / len(values)


def smoothed(density, width):
    """Return the mean over `width` bins around each, the longer half to the right."""
    last = len(density) - 1
    before = (width - 1) // 2
    around = [
        [density[min(max(i + j - before, 0), last)] for j in range(width)] for i in range(last + 1)
    ]
    return np.mean(around, axis=1)


def both_ways(p, q):
    return (p * np.log(p / q)).sum() + (q * np.log(q / p)).sum()


@pytest.mark.parametrize("block", [2**22, 30])
@pytest.mark.parametrize("widths", [(1, 2), (4, 15)])
def test_weiper_is_its_formula(given, widths, block, monkeypatch):
    monkeypatch.setattr(weiper, "BLOCK", block)
    bank, outputs = given
    settings = {"repeats": 5, "bins": 20, "lambda_1": 0.7, "lambda_2": 3}
    detector = WeiPer(**settings, smooth=widths[0], smooth_perturbed=widths[1])
    detector.fit(bank, NOTHING, NOTHING, seed=3)
    weight, bias = detector.weight.numpy(), bank["head/bias"].double().numpy()

    def views(features):
        h = features.double().numpy()
        return h, np.concatenate([weight[3 * i : 3 * i + 3] @ h + bias for i in range(5)])

    training = [views(h) for h in bank["features"]]
    expected = []
    for h in outputs["features"]:
        score, own = 0.0, views(h)
        for part, factor, width, epsilon in ((0, 1, widths[0], 0.01), (1, 0.7, widths[1], 0.025)):
            of_bank = [one[part] for one in training]
            ends = np.min(of_bank), np.max(of_bank)
            p = np.mean([histogram(one, *ends, 20) for one in of_bank], axis=0) + epsilon
            q = smoothed(histogram(own[part], *ends, 20), width) + epsilon
            score += factor * both_ways(p / p.sum(), q / q.sum())
        chances = np.exp(own[1].reshape(5, 3))
        score -= 3 * (chances / chances.sum(1, keepdims=True)).max(1).mean()
        expected.append(score)
    np.testing.assert_allclose(detector.score(outputs).numpy(), expected, rtol=1e-9)


def test_the_noise_has_the_length_of_the_weights_times_delta(given):
    bank, _ = given
    weight = bank["head/weight"].double()
    first, again, other = (
        WeiPer(delta=1.8).fit(bank, NOTHING, NOTHING, seed=seed).weight for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    noise = first.unflatten(0, (100, 3)) - weight
    torch.testing.assert_close(
        noise.norm(dim=2), (1.8 * weight.norm(dim=1)).repeat(100, 1), rtol=1e-12, atol=0
    )
    directions = torch.nn.functional.normalize(noise, dim=2)
    assert directions.mean(0).norm(dim=1).max() < 0.25  # of 100 random ones about 0.1


def test_without_noise_the_copies_are_the_head(given):
    bank, _ = given
    detector = WeiPer(repeats=2, delta=0).fit(bank, NOTHING, NOTHING)
    assert torch.equal(detector.weight, bank["head/weight"].double().repeat(2, 1))


def test_densities_of_values_inside_at_the_ends_and_outside():
    ends = torch.tensor(0.0).double(), torch.tensor(4.0).double()
    values = torch.tensor([[0.0, 1.1, 4.0, 4.1], [-0.1, 1.5, 1.9, 3.1]]).double()
    assert densities(values, *ends, 4).tolist() == [[0.25, 0.25, 0, 0.25], [0, 0.5, 0, 0.25]]


def test_divergence_of_two_coins():
    p, q = torch.tensor([0.25, 0.75]).double(), torch.tensor([[0.5, 0.5], [0.25, 0.75]]).double()
    found = divergence(p, q, 1, 0.0)
    assert found.tolist() == pytest.approx([0.25 * math.log(3), 0])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"repeats": 0}, "weiper repeats=0: a whole number, at least 1"),
        ({"bins": 1}, "weiper bins=1: a whole number, at least 2"),
        ({"smooth_perturbed": 0}, "weiper smooth_perturbed=0: a whole number, at least 1"),
        ({"delta": -1}, "weiper delta=-1: a number from 0"),
        ({"lambda_2": math.nan}, "weiper lambda_2=nan: a number from 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, told):
    with pytest.raises(GradbenchError, match=told):
        WeiPer(**settings)
