"""Penultimate features and the last layer of f."""

import pytest
import torch
from _dummies import CLASSES, network
from torch import nn

from gradbench.backbones.backbone import Backbone
from gradbench.backbones.densenet import DenseNet
from gradbench.backbones.resnet import ResNet
from gradbench.errors import GradbenchError
from gradbench.outputs import base
from gradbench.outputs.layers import head_of, head_tensors
from gradbench.outputs.read import read_outputs

NORMS = "squared_norms/ones/bce"


def behind(net: nn.Module, shape=(3, 16, 16)) -> Backbone:
    return Backbone(net, [0.5] * shape[0], [0.25] * shape[0], CLASSES, shape).eval()


@pytest.mark.parametrize("names", [["features"], ["features", "layer_means", NORMS]])
def test_features_are_what_the_last_layer_maps_to_the_logits(names):
    torch.manual_seed(0)
    f = behind(ResNet(18, 3, width=4))
    found = read_outputs(f, torch.rand(70, 3, 16, 16), [*names, "logits"])
    assert found["features"].shape == (70, 32)
    logits = found["features"] @ f.network.fc.weight.T + f.network.fc.bias
    torch.testing.assert_close(logits, found["logits"], rtol=1e-5, atol=1e-6)


def test_features_are_the_pooled_last_stage():
    torch.manual_seed(0)
    f = behind(ResNet(18, 3, width=4))
    found = read_outputs(f, torch.rand(5, 3, 16, 16), ["features", "layer_means"])
    torch.testing.assert_close(found["features"], found["layer_means/layer4"])


@pytest.mark.parametrize(
    ("net", "shape", "name"),
    [
        (ResNet(18, 3, width=4), (3, 16, 16), "network.fc"),
        (DenseNet(classes=3, depth=10, growth=4), (3, 16, 16), "network.fc"),
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.Linear(7, 3, bias=False)), (3, 2, 2),
         "network.2"),
    ],
    ids=["resnet", "densenet", "no bias"],
)  # fmt: skip
def test_the_layer_is_found_by_itself(net, shape, name):
    f = behind(net, shape)
    assert head_of(f) is f.get_submodule(name)
    x = torch.rand(4, *shape)
    head, found = head_tensors(f), read_outputs(f, x, ["features", "logits"])
    logits = found["features"] @ head["head/weight"].T + head["head/bias"]
    torch.testing.assert_close(logits, found["logits"], rtol=1e-4, atol=1e-5)


def test_tensors_of_the_head_are_copies():
    f = network()
    head_tensors(f)["head/weight"].zero_()
    assert f.network.fc.weight.abs().sum() > 0


def test_no_hook_stays_behind():
    f = network()
    read_outputs(f, torch.rand(2, 1, 8, 8), ["features", "layer_means", NORMS])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in f.modules())


def test_after_a_pass_that_ran_out_of_memory_every_image_counts_once(monkeypatch):
    f, x = network(), torch.rand(6, 1, 8, 8)
    whole = read_outputs(f, x, ["features", NORMS])
    squared_norms = base.squared_norms

    def twice(backbone, images, **settings):
        backbone(images[:2])  # what a halved chunk does: some images pass again
        result = squared_norms(backbone, images, **settings)
        object.__setattr__(result, "halvings", 1)
        return result

    monkeypatch.setattr(base, "squared_norms", twice)
    assert torch.equal(read_outputs(f, x, ["features", NORMS])["features"], whole["features"])


def test_a_network_without_a_last_linear_layer_is_refused():
    f = behind(nn.Sequential(nn.Conv2d(3, 3, 2), nn.Flatten()), (3, 2, 2))
    with pytest.raises(GradbenchError, match="no Linear layer"):
        read_outputs(f, torch.rand(2, 3, 2, 2), ["features"])
