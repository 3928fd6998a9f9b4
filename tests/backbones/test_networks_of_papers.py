"""Networks that papers use: equal to a plain reference in float64, and to timm's."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from gradbench.backbones.build import build_network, network_config
from gradbench.backbones.efficientnet_lite import STAGES, SameConv2d
from gradbench.config import load_member


def built(name: str, classes: int, channels: int) -> nn.Module:
    """A network with lively weights in evaluation mode."""
    torch.manual_seed(0)
    net = build_network(network_config(load_member("backbone", name), classes, channels))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.double().eval()


def test_the_network_of_outlier_exposure():
    net = built("mnist_cnn", 10, 1)
    weights = [p for _, p in sorted(net.named_parameters())]
    assert sum(p.numel() for p in weights) == 21_840
    b1, w1, b2, w2, b3, w3, b4, w4 = (p.detach() for p in weights)
    x = torch.rand(3, 1, 28, 28, dtype=torch.float64)

    def unfolded(x, w, b):
        """Windows of 5x5 times the kernel, then the largest of every 2x2."""
        windows = x.unfold(2, 5, 1).unfold(3, 5, 1)
        y = torch.einsum("bchwij,ocij->bohw", windows, w) + b.view(1, -1, 1, 1)
        return y.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))

    def gelu(x):
        return x / (1 + torch.exp(-1.702 * x))

    y = gelu(unfolded(gelu(unfolded(x, w1, b1)), w2, b2)).reshape(3, 320)
    torch.testing.assert_close(net(x), gelu(y @ w3.T + b3) @ w4.T + b4)


@pytest.mark.parametrize("size", [(7, 7), (8, 8), (9, 6)])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (5, 2), (5, 1)])
def test_same_padding_puts_the_odd_pixel_right_and_below(size, kernel, stride):
    """Output i reads the inputs from i * stride - floor(missing / 2) on, as TensorFlow says."""
    conv = SameConv2d(1, 1, kernel, stride).double()
    x = torch.randn(1, 1, *size, dtype=torch.float64)
    shape = [math.ceil(n / stride) for n in size]
    top, left = (max((m - 1) * stride + kernel - n, 0) // 2 for m, n in zip(shape, size))
    expected = torch.zeros(*shape, dtype=torch.float64)
    for i, j in torch.cartesian_prod(*map(torch.arange, shape)).tolist():
        for a, b in torch.cartesian_prod(*[torch.arange(kernel)] * 2).reshape(-1, 2).tolist():
            row, column = i * stride - top + a, j * stride - left + b
            if 0 <= row < size[0] and 0 <= column < size[1]:
                expected[i, j] += conv.weight[0, 0, a, b].detach() * x[0, 0, row, column]
    torch.testing.assert_close(conv(x)[0, 0].detach(), expected)


def test_efficientnet_lite_computes_its_table():
    net, x = built("efficientnet_lite0", 5, 3), torch.randn(2, 3, 65, 40, dtype=torch.float64)
    state = net.state_dict()

    def layer(y, conv, norm, stride=1, groups=1):
        weight = state[f"{conv}.weight"]
        kernel = weight.shape[-1]
        missing = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in y.shape[2:]]
        (top, left), (down, right) = [m // 2 for m in missing], [m - m // 2 for m in missing]
        y = functional.conv2d(functional.pad(y, (left, right, top, down)), weight, None, stride,
                              groups=groups)  # fmt: skip
        of_norm = [state[f"{norm}.{n}"] for n in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(y, *of_norm, eps=1e-3)

    y, number = layer(x, "_conv_stem", "_bn0", 2).clamp(0, 6), 0
    for expansion, outputs, count, stride, _ in STAGES:
        for i in range(count):
            at, before = f"_blocks.{number}.", y
            if expansion > 1:
                y = layer(y, f"{at}_expand_conv", f"{at}_bn0").clamp(0, 6)
            y = layer(y, f"{at}_depthwise_conv", f"{at}_bn1", 1 if i else stride, y.shape[1])
            y = layer(y.clamp(0, 6), f"{at}_project_conv", f"{at}_bn2")
            assert y.shape[1] == outputs
            y, number = y + before if i else y, number + 1
    y = layer(y, "_conv_head", "_bn1").clamp(0, 6).mean((2, 3))
    torch.testing.assert_close(net(x).detach(), y @ state["_fc.weight"].T + state["_fc.bias"])
    assert number == 16


def test_efficientnet_lite_is_that_of_timm():
    timm = pytest.importorskip("timm")
    theirs, ours = timm.create_model("tf_efficientnet_lite0"), built("efficientnet_lite0", 1000, 3)
    assert sum(p.numel() for p in ours.parameters()) == 4_652_008
    # both name their tensors in the order of the layers
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    x = torch.randn(1, 3, 97, 97, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs.double().eval()(x))
