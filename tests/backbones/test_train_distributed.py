"""Training in two processes gives the network of one, up to the rounding of sums."""

import pytest
import torch
from _dummies import images, network
from _two import CPU, normalised, with_batch_norm, without_batch_norm
from test_training import Cut, cut_after
from torch import nn

from gradbench.backbones.backbone import Backbone
from gradbench.backbones.batch_norm import CpuSyncBatchNorm
from gradbench.backbones.recipe import Recipe
from gradbench.backbones.training import train, train_distributed
from gradbench.backbones.workers import Worker

# one kind of step size for both, so that a wrong sum of gradients could not hide
RECIPE = Recipe(epochs=2, batch=15, lr=0.05, pad=1, flip=True, precision="float32")


def backbone(build) -> Backbone:
    torch.manual_seed(3)
    return Backbone(build(), [0.4], [0.3], ("left", "right", "top"), (1, 8, 8))


def close(first: Backbone, second: Backbone) -> bool:
    own, other = first.network.state_dict(), second.network.state_dict()
    return own.keys() == other.keys() and all(
        torch.allclose(own[name].double(), other[name].double(), rtol=1e-3, atol=1e-4)
        for name in own
    )


@pytest.mark.parametrize("build", [with_batch_norm, without_batch_norm])
def test_two_processes_train_the_network_of_one(pool, tmp_path, build):
    before, one, two = backbone(build), backbone(build), backbone(build)
    told = train(one, images(66), RECIPE, 0, tmp_path / "one", Worker(CPU))
    history = train_distributed(pool, two, images(66), RECIPE, 0, tmp_path / "two")
    assert close(one, two)
    assert not close(before, two)
    assert history["loss"] == pytest.approx(told["loss"], rel=1e-4)
    assert history["accuracy"] == pytest.approx(told["accuracy"])
    # a network of one process goes on where two stopped: here there is nothing left to do
    again = backbone(build)
    assert train(again, images(66), RECIPE, 0, tmp_path / "two", Worker(CPU)) == history
    assert all(map(torch.equal, again.state_dict().values(), two.state_dict().values()))


def test_two_processes_go_on_where_one_was_stopped(pool, tmp_path, monkeypatch):
    undisturbed, stopped, resumed = network(), network(), network()
    train(undisturbed, images(66), RECIPE, 0, tmp_path / "whole", Worker(CPU))
    with monkeypatch.context() as patch:
        cut_after(patch, 5)  # of 4 steps an epoch
        with pytest.raises(Cut):
            train(stopped, images(66), RECIPE, 0, tmp_path / "work", Worker(CPU))
    done = (tmp_path / "work" / "training.safetensors").read_bytes()
    history = train_distributed(pool, resumed, images(66), RECIPE, 0, tmp_path / "work")
    assert len(history["loss"]) == 2
    assert done != (tmp_path / "work" / "training.safetensors").read_bytes()
    assert close(undisturbed, resumed)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_statistics_over_both_are_those_of_the_whole_batch(pool, momentum):
    torch.manual_seed(5)
    images, back = torch.randn(2, 8, 4, 3, 5, dtype=torch.float64)
    images = 3 * images + 2
    norm = nn.BatchNorm2d(4, momentum=momentum).double()
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    parts, totals, buffers = pool.call("a test", normalised, norm, images, back)
    images.requires_grad_()
    out = norm(images)
    grads = torch.autograd.grad((out * back).sum(), [images, *norm.parameters()])
    expected = [out.detach(), grads[0]]
    for position, whole in enumerate(expected):
        found = torch.cat([part[position] for part in parts])
        torch.testing.assert_close(found, whole, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(tuple(totals), grads[1:], rtol=1e-10, atol=1e-10)
    for name, value in norm.state_dict().items():
        torch.testing.assert_close(buffers[f"0.{name}"], value, rtol=1e-10, atol=1e-10)


def test_in_evaluation_mode_it_is_torchs_own():
    norm = nn.BatchNorm1d(3)
    norm.running_mean.normal_()
    norm.eval()
    values = torch.randn(6, 3)
    assert torch.equal(CpuSyncBatchNorm.from_layer(norm)(values), norm(values))
