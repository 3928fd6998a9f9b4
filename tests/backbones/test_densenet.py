"""DenseNet-BC: size, agreement with torchvision's, what it refuses, gradients, its file."""

import math

import pytest
import torch
from _dummies import CLASSES
from torch import nn
from torchvision.models.densenet import DenseNet as Theirs

from gradbench.backbones.backbone import Backbone
from gradbench.backbones.build import build_network, network_config
from gradbench.backbones.densenet import DenseNet
from gradbench.config import compose, load_member
from gradbench.errors import GradbenchError
from gradbench.outputs.read import read_outputs


def lively(depth: int, growth: int, channels: int = 3) -> DenseNet:
    """Return a network whose normalisations do something, in evaluation mode."""
    net = DenseNet(depth, 3, channels, growth)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


def test_the_published_size():
    with torch.device("meta"):
        net = DenseNet(100, 10)
    parameters = list(net.parameters())
    assert len(parameters) == 299
    assert sum(p.numel() for p in parameters) == 769_162
    assert [len(block.layer) for block in (net.block1, net.block2, net.block3)] == [16, 16, 16]
    assert (net.trans1.conv1.out_channels, net.trans2.conv1.out_channels) == (108, 150)
    assert net.fc.in_features == 342
    assert all(m.bias is None for m in net.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize(("depth", "growth"), [(10, 3), (22, 4)])
def test_it_computes_what_torchvision_computes_after_the_stem(depth, growth):
    ours = lively(depth, growth)
    layers = ((depth - 4) // 6,) * 3
    theirs = Theirs(growth, layers, 2 * growth, num_classes=3).eval()
    theirs.features.conv0, theirs.features.norm0 = ours.conv1, nn.Identity()
    theirs.features.relu0, theirs.features.pool0 = nn.Identity(), nn.Identity()
    state = theirs.state_dict()
    theirs.load_state_dict(dict(zip(state, ours.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 9, 8)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x))


def test_names_are_those_of_the_published_networks():
    names = list(DenseNet(10, 3).state_dict())
    inside = ("bn1", "conv1", "bn2", "conv2")
    assert names[0] == "conv1.weight"
    assert {name.rsplit(".", 1)[0] for name in names} == {
        *("conv1", "bn1", "fc"),
        *(f"block{block}.layer.0.{part}" for block in (1, 2, 3) for part in inside),
        *(f"trans{block}.{part}" for block in (1, 2) for part in inside[:2]),
    }


@pytest.mark.parametrize(
    ("compression", "channels"), [(1, (6, 8)), (0.5, (3, 2)), (0.4, (2, 1)), (0.01, (1, 1))]
)
def test_compression_rounds_down_and_leaves_a_channel(compression, channels):
    net = DenseNet(10, 4, channels=2, growth=2, compression=compression)
    assert (net.trans1.conv1.out_channels, net.trans2.conv1.out_channels) == channels
    assert net(torch.randn(2, 2, 8, 8)).shape == (2, 4)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"depth": 101}, "depth 101: choose 4"),
        ({"depth": 4}, "depth 4:"),
        ({"depth": -2}, "depth -2:"),
        ({"growth": 0}, "growth 0: at least 1"),
        ({"compression": 0}, "compression 0: above 0"),
        ({"compression": 1.5}, "compression 1.5:"),
        ({"compression": math.nan}, "compression nan:"),
    ],
)
def test_it_refuses(settings, text):
    with pytest.raises(ValueError, match=text):
        DenseNet(**{"depth": 10, "classes": 3, "growth": 2} | settings)


def test_weights_start_as_published():
    net = DenseNet(10, 3, growth=40)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            expected = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
            assert module.weight.std().item() == pytest.approx(expected, rel=0.06)
    assert not net.fc.bias.any()


def test_layer_means_are_of_the_four_published_places():
    net = lively(10, 4, channels=1)
    backbone = Backbone(net, [0.4], [0.3], CLASSES, (1, 8, 8)).eval()
    pixels = torch.rand(5, 1, 8, 8)
    means = torch.cat(list(read_outputs(backbone, pixels, ["layer_means"]).values()), 1)
    with torch.inference_mode():
        stem = net.conv1((pixels - 0.4) / 0.3)
        first = net.trans1(net.block1(stem))
        second = net.trans2(net.block2(first))
        last = torch.relu(net.bn1(net.block3(second)))
    expected = torch.cat([x.mean((2, 3)) for x in (stem, first, second, last)], 1)
    torch.testing.assert_close(means, expected)
    with torch.inference_mode():
        torch.testing.assert_close(net.fc(last.mean((2, 3))), backbone(pixels))


def test_its_file_builds_and_names_what_it_builds():
    config = load_member("backbone", "densenet_bc_100_12")
    assert config["name"] == "densenet_bc_100_12"
    words = ["backbone=densenet_bc_100_12", "backbone.depth=10", "backbone.growth=4"]
    config = compose(words)["backbone"]
    assert config["name"] == "densenet_bc_10_4"
    net = build_network(network_config(config, classes=7, channels=1)).eval()
    assert net(torch.zeros(2, 1, 8, 8)).shape == (2, 7)
    with pytest.raises(GradbenchError, match="depth 12: choose 4"):
        build_network(network_config(config | {"depth": 12}, 7, 1))


def test_dropout_follows_every_convolution_but_the_first_and_is_no_module_where_there_is_none():
    ours, plain = DenseNet(16, 3, growth=4, dropout=0.2), DenseNet(16, 3, growth=4)
    kinds = [type(module) for module in ours.modules()]
    # a layer's stands after both of its convolutions
    assert kinds.count(nn.Dropout) == 3 * 2 + 2
    assert "ropout" not in str(plain)  # which is part of the digests of networks
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(ours.eval()(x), plain.eval()(x))
        assert not torch.equal(ours.train()(x), plain.train()(x))
    with pytest.raises(ValueError, match=r"^dropout 1\.0: from 0, below 1"):
        DenseNet(10, 3, dropout=1.0)
