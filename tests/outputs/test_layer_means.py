"""Means of feature layers over positions, one output a layer."""

import pytest
import torch
import torchvision
from _dummies import CLASSES, TinyNet, images
from torch import nn

from gradbench.backbones.backbone import Backbone
from gradbench.backbones.resnet import ResNet
from gradbench.errors import GradbenchError
from gradbench.outputs.extract import extract
from gradbench.outputs.layers import mean_over_positions
from gradbench.outputs.perturbed import read_until
from gradbench.outputs.read import read_outputs

NORMS = "squared_norms/ones/bce"


@pytest.mark.parametrize("names", [["layer_means"], [NORMS, "layer_means"]])
def test_they_are_spatial_means_in_the_order_of_the_network(names):
    torch.manual_seed(0)
    net = ResNet(18, 5, width=4)
    f = Backbone(net, [0.5] * 3, [0.25] * 3, range(5), (3, 16, 16)).eval()
    x = torch.rand(6, 3, 16, 16)
    with torch.inference_mode():
        y = torch.relu(net.bn1(net.conv1((x - 0.5) / 0.25)))
        maps = [y]
        for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
            maps.append(layer(maps[-1]))
    found = read_outputs(f, x, names)
    layers = ["stem", "layer1", "layer2", "layer3", "layer4"]
    assert [name for name in found if name != NORMS] == [f"layer_means/{n}" for n in layers]
    for name, expected in zip(layers, maps):
        value = found[f"layer_means/{name}"]
        torch.testing.assert_close(value, expected.mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_of_tokens_and_vectors():
    class Tokens(nn.Module):
        feature_layers = ("tokens", "vector")

        def __init__(self):
            super().__init__()
            self.tokens, self.vector = nn.Identity(), nn.Linear(4, 3)

        def forward(self, x):
            return self.vector(self.tokens(x.flatten(2)).mean(1))

    net = Tokens()
    f = Backbone(net, [0.0], [1.0], CLASSES, (5, 2, 2)).eval()
    x = torch.rand(3, 5, 2, 2)
    found = read_outputs(f, x, ["layer_means"])
    means = x.flatten(2).mean(1)
    torch.testing.assert_close(found["layer_means/tokens"], means)
    torch.testing.assert_close(found["layer_means/vector"], net.vector(means).detach())


@pytest.mark.parametrize("size", [(32, 32), (40, 24), (8, 8)])
def test_of_maps_with_channels_last(size):
    torch.manual_seed(0)
    net = torchvision.models.SwinTransformer([4, 4], 8, [1, 1], [1, 2], [2, 2], num_classes=3)
    f = Backbone(net, [0.0] * 3, [1.0] * 3, CLASSES, (3, *size)).eval()
    x = torch.rand(2, 3, *size)
    found = read_outputs(f, x, ["layer_means"])
    shapes = {name.split("/")[1]: tuple(value.shape) for name, value in found.items()}
    assert shapes == dict(
        zip((*(f"features.{i}" for i in range(4)), "norm"), [(2, 8), (2, 8), *[(2, 16)] * 3])
    )
    with torch.inference_mode():
        expected = net.norm(net.features(x)).mean((1, 2))
    torch.testing.assert_close(found["layer_means/norm"], expected)
    alone = read_until(f, x, "layer_means/norm").detach()
    assert torch.allclose(alone, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((2, 5, 7, 7), (28, 28)),
        ((2, 7, 7, 7), (28, 28)),
        ((2, 6, 6, 5), (48, 40)),  # both fit: in doubt channels come first
        ((2, 16, 1, 1), (8, 8)),
        ((2, 3, 6, 4), (224, 160)),
    ],
)
def test_in_doubt_channels_come_first(shape, size):
    maps = torch.rand(shape)
    assert torch.equal(mean_over_positions(maps, "layer", size), maps.mean((2, 3)))


def test_a_later_change_in_place_does_not_reach_them():
    class InPlace(TinyNet):
        def forward(self, x):
            return self.fc(torch.relu_(self.bn(self.conv(x))).mean((2, 3)))

    torch.manual_seed(0)
    f = Backbone(InPlace(), [0.4], [0.3], CLASSES, (1, 8, 8)).eval()
    found = read_outputs(f, torch.rand(5, 1, 8, 8), ["layer_means"])["layer_means/bn"]
    assert (found < 0).any()


def test_another_layer_more_computes_that_alone(store):
    torch.manual_seed(0)
    net, data = TinyNet(), images(30)
    layers = (["bn"], ["bn", "conv"])
    one, two = (Backbone(net, [0.4], [0.3], CLASSES, (1, 8, 8), None, n).eval() for n in layers)
    first = extract(one, "w", data, ["layer_means"], store)
    made = len(store.made)
    both = extract(two, "w", data, ["layer_means"], store)
    assert list(both) == ["layer_means/bn", "layer_means/conv"]
    assert torch.equal(both["layer_means/bn"], first["layer_means/bn"])
    assert [key.config["output"] for key in store.made[made:]] == ["layer_means/conv"]


class Twice(TinyNet):
    feature_layers = ("act",)

    def __init__(self):
        super().__init__()
        self.act = nn.ReLU()

    def forward(self, x):
        return self.fc(self.act(self.act(self.bn(self.conv(x)))).mean((2, 3)))


class Pair(TinyNet):
    feature_layers = ("pair",)

    def __init__(self):
        super().__init__()
        self.pair = type("Two", (nn.Module,), {"forward": lambda self, x: (x, x)})()

    def forward(self, x):
        return super().forward(self.pair(x)[0])


@pytest.mark.parametrize(
    ("net", "text"), [(Twice, "'act' gave 10 outputs for 5 images"), (Pair, "'pair' gives no")]
)
def test_layers_that_cannot_be_read_are_one_sentence(net, text):
    f = Backbone(net(), [0.4], [0.3], CLASSES, (1, 8, 8)).eval()
    with pytest.raises(GradbenchError, match=text):
        read_outputs(f, torch.rand(5, 1, 8, 8), ["layer_means"])
