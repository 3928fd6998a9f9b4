"""Passes with active dropout: of the image alone, repeatable, with the known mean and variance."""

import random

import numpy as np
import pytest
import torch
from _dummies import network
from torch import nn

from gradbench.backbones.backbone import Backbone
from gradbench.errors import GradbenchError
from gradbench.outputs.dropout_logits import dropout_modules
from gradbench.outputs.read import read_outputs


class Dropping(nn.Module):
    """One linear layer after dropout."""

    def __init__(self, share: float):
        super().__init__()
        self.drop, self.fc = nn.Dropout(share), nn.Linear(16, 3)

    def forward(self, x):
        return self.fc(self.drop(x.flatten(1)))


def dropping(share=0.25):
    torch.manual_seed(0)
    return Backbone(Dropping(share), [0.0], [1.0], "abc", (1, 4, 4)).eval()


def convolutional():
    f = network(width=8)
    f.network.stage1, f.network.stage3 = nn.Dropout2d(0.2).eval(), nn.Dropout(0.3).eval()
    return f


def pixels(count, size=8):
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(3))


def read(f, images, passes=5):
    name = f"dropout_logits/{passes}"
    return read_outputs(f, images, [name])[name]


def test_mean_and_variance_are_those_of_independent_masks():
    """z = W (m h) / (1 - p) has the mean W h and the variance p / (1 - p) sum (w h)^2."""
    f, images = dropping(), pixels(3, 4)
    found = read(f, images, 20000).double()
    with torch.no_grad():
        plain = f(images).double()
        terms = (f.network.fc.weight * images.flatten(1)[:, None]).double()
    expected = (terms**2).sum(2) / 3
    errors = (found.mean(1) - plain) / (expected / 20000).sqrt()
    assert errors.abs().max() < 4
    torch.testing.assert_close(found.var(1), expected, rtol=0.06, atol=0)


def test_an_image_has_the_same_passes_in_any_batch_and_at_any_time():
    f, images = convolutional(), pixels(6)
    whole = read(f, images)
    assert whole.shape == (6, 5, 3)
    assert torch.equal(read(f, images), whole)
    assert torch.equal(read(f, images[[4]]), whole[[4]])
    assert torch.equal(read(f, images[[2, 2, 5]]), whole[[2, 2, 5]])
    assert len(whole.flatten(0, 1).unique(dim=0)) == 30
    # the passes are in 64s
    assert torch.equal(read(f, images[:2], 70)[:, :64], read(f, images[:2], 64))


def test_other_images_have_other_masks():
    images = torch.stack([torch.full((1, 4, 4), 0.5), torch.full((1, 4, 4), 0.5)])
    images[1, 0, 0, 0] += 1 / 255
    first, second = read(dropping(0.5), images, 50)
    assert float((first - second).abs().max()) > 0.05


def test_batch_normalisation_modes_and_random_numbers_are_left_alone():
    f = convolutional()
    before = {name: values.clone() for name, values in f.state_dict().items()}
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    read(f, pixels(3))
    assert not any(module.training for module in f.modules())
    assert all(torch.equal(before[name], values) for name, values in f.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]


def test_modes_are_put_back_after_a_fault():
    f = dropping()
    with pytest.raises(RuntimeError):
        read(f, pixels(2, 8))
    assert not f.network.drop.training


def test_the_other_outputs_of_a_batch_are_those_without_dropout():
    f, images = convolutional(), pixels(5)
    both = read_outputs(f, images, ["logits", "dropout_logits/3"])
    assert torch.equal(both["logits"], read_outputs(f, images, ["logits"])["logits"])


@pytest.mark.parametrize("f", [network(), dropping(0.0)])
def test_a_network_without_dropout_is_refused(f):
    assert dropout_modules(f) == []
    kind = type(f.network).__name__
    with pytest.raises(GradbenchError, match=f"^{kind} has no dropout .*dropout_logits/5$"):
        read(f, pixels(2))


@pytest.mark.parametrize("passes", ["1", "0", "-3", "many", "2.5"])
def test_numbers_of_passes_that_cannot_be(passes):
    with pytest.raises(GradbenchError, match=f"^dropout_logits/{passes}: write a whole number"):
        read(dropping(), pixels(2, 4), passes)
