"""ResNets for CIFAR: size, names, shortcuts, agreement with the published definition."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from gradbench.backbones.build import build_network, network_config
from gradbench.backbones.resnet_cifar import CifarResNet, ZeroPadding
from gradbench.config import load_member


@pytest.mark.parametrize(
    ("depth", "weights"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018)]
)
def test_the_published_sizes(depth, weights):
    net = build_network(network_config(load_member("backbone", f"resnet{depth}"), 10, 3))
    assert sum(p.numel() for p in net.parameters()) == weights
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth
    assert net.linear.in_features == 64


def test_names_are_those_of_the_published_networks():
    names = {name.rsplit(".", 1)[0] for name in CifarResNet(8, 3, width=2).state_dict()}
    parts = ("conv1", "bn1", "conv2", "bn2")
    blocks = {f"layer{stage}.0.{part}" for stage in (1, 2, 3) for part in parts}
    assert names == {"conv1", "bn1", "linear"} | blocks


def test_a_shortcut_takes_every_second_pixel_between_channels_of_zeros():
    x = torch.arange(2 * 2 * 4 * 4).view(2, 2, 4, 4).float()
    y = ZeroPadding(2, 2)(x)
    assert y.shape == (2, 4, 2, 2)
    assert not y[:, [0, 3]].any()
    assert torch.equal(y[:, 1:3], x[:, :, [0, 2]][..., [0, 2]])


def test_it_computes_what_the_paper_describes():
    net = CifarResNet(14, 5, width=4)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    net.eval()
    state, x = net.state_dict(), torch.randn(3, 3, 9, 8)

    def normalised_convolution(y, conv, bn, stride=1):
        y = functional.conv2d(y, state[f"{conv}.weight"], stride=stride, padding=1)
        of_bn = [state[f"{bn}.{n}"] for n in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(y, *of_bn)

    y = normalised_convolution(x, "conv1", "bn1").relu()
    for stage in (1, 2, 3):
        for block in (0, 1):
            at, stride = f"layer{stage}.{block}", 2 if stage > 1 and not block else 1
            inner = normalised_convolution(y, f"{at}.conv1", f"{at}.bn1", stride).relu()
            inner = normalised_convolution(inner, f"{at}.conv2", f"{at}.bn2")
            if stride == 2:
                y = y[:, :, ::2, ::2]
                zeros = torch.zeros(len(y), y.shape[1] // 2, *y.shape[2:])
                y = torch.cat((zeros, y, zeros), 1)
            y = (inner + y).relu()
    expected = functional.linear(y.mean((2, 3)), state["linear.weight"], state["linear.bias"])
    with torch.inference_mode():
        torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize(("settings", "text"), [((18, 10), "depth 18: choose 6n"), ((2, 10), "2:"),
                                                ((20, 10, 3, 0), "width 0")])  # fmt: skip
def test_it_refuses(settings, text):
    with pytest.raises(ValueError, match=text):
        CifarResNet(*settings)
