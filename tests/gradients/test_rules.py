"""Routes of one rule agree with each other; the cost model chooses between them by shapes."""

import pytest
import torch
from _gradient_settings import CONVOLUTIONS, ROWS, SETTINGS, case
from _gradient_truth import ALONE, assert_exact
from torch import Tensor, nn

from gradbench.backbones.resnet import ResNet
from gradbench.gradients import squared_norms
from gradbench.gradients.layers import read_layer
from gradbench.gradients.rules import base
from gradbench.gradients.rules.base import Rule
from gradbench.gradients.rules.linear import Embedding, Linear

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")

ROUTES = ("direct", "gram", "native")


@pytest.mark.parametrize("elements", [1, 700, 10**9])
@pytest.mark.parametrize("name", ["conv-uneven", "conv-depthwise", "conv3d", "transposed2d-groups"])
def test_blocks_of_any_size_agree(name, elements, monkeypatch):
    monkeypatch.setitem(base.BLOCK_ELEMENTS, "cpu", elements)
    model, images, _, _ = case(name)
    for route in ROUTES:
        assert_exact(squared_norms(model, images, routes=route).values, case(name).truth)


@pytest.mark.parametrize("elements", [1, 100])
@pytest.mark.parametrize(
    "name", ["vision", "embedding", "batch-norm", "group-norm", "layer-norm-two", "instance-norm"]
)
def test_blocks_of_whole_networks_agree(name, elements, monkeypatch):
    monkeypatch.setitem(base.BLOCK_ELEMENTS, "cpu", elements)
    assert_exact(squared_norms(case(name).model, case(name).images).values, case(name).truth)


@pytest.mark.parametrize("route", [*ROUTES, ALONE])
@pytest.mark.parametrize("name", [*CONVOLUTIONS, *ROWS])
def test_forced_routes_agree(name, route):
    model, images, _, _ = case(name)
    found = squared_norms(model, images, routes=route)
    assert_exact(found.values, case(name).truth)
    if route == ALONE:
        assert set(found.routes.values()) == {ALONE}
    elif name in CONVOLUTIONS:
        kinds = {how for how in found.routes.values() if how.startswith("conv")}
        assert {how.split()[1] for how in kinds} <= {route, "materialised"}
        assert any(how.endswith(route) for how in kinds)


def cancelling() -> dict[str, tuple[Rule, Tensor, Tensor]]:
    """Gradients that are zero, of Gram matrices that are not."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 64, 1, 1, generator=g).expand(200, 64, 2, 2).contiguous()
    delta = torch.randn(200, 64, 2, 2, generator=g)
    delta[..., 1, 1] -= delta.sum((2, 3))
    rows = (x.flatten(2).transpose(1, 2), delta.flatten(2).transpose(1, 2))
    conv, linear = torch.empty(64, 64, 1, 1), Linear()
    same = torch.zeros(200, 4, dtype=torch.long)
    return {
        "conv": (read_layer(torch.conv2d, (x, conv), {}).rule, x, delta),
        "linear": (linear, *rows),
        "embedding": (Embedding(None), same, rows[1]),
    }


@pytest.mark.parametrize("kind", ["conv", "linear", "embedding"])
def test_gram_never_negative(kind):
    rule, x, delta = cancelling()[kind]
    found = rule.norms(x, delta, "gram")
    assert (found >= 0).all()
    assert (found < 1e-2).all()


def routes_of(model: nn.Module, images: int, channels: int = 3, size: int = 32) -> dict[str, str]:
    return squared_norms(model, torch.rand(images, channels, size, size), chunk=images).routes


def test_cifar_resnet18_uses_gram_late():
    model = ResNet(18, 10, width=64).eval()
    names = [f"layer{stage}.1.conv2.weight" for stage in (1, 2, 3, 4)]
    found = squared_norms(model, torch.rand(1, 3, 32, 32), parameters=names)
    routes = [found.routes[n] for n in names]
    assert routes[0] != "conv2d gram"
    assert routes[2:] == ["conv2d gram", "conv2d gram"]


def test_depthwise_layers_are_left_to_the_device():
    model = nn.Sequential(nn.Conv2d(3, 48, 1), nn.Conv2d(48, 48, 5, groups=48), nn.Flatten())
    assert routes_of(model, 1)["1.weight"] == "conv2d native"


def test_routes_do_not_depend_on_the_batch():
    model = ResNet(18, 10, width=8).eval()
    assert routes_of(model, 1) == routes_of(model, 2) == routes_of(model, 7)


def test_every_kind_of_layer_is_met_by_the_table():
    """A rule without a setting would be a rule without a test."""
    kinds = {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d"}
    kinds |= {"conv_transpose3d", "linear", "embedding", "batch_norm", "group_norm"}
    kinds |= {"instance_norm", "layer_norm", "rms_norm", "add", "mul", "expand", "prelu"}
    kinds |= {"div", "addcmul", "elementwise", "attention", "matmul"}
    met = set()
    for name in SETTINGS:
        routes = squared_norms(case(name).model, case(name).images[:2], **SETTINGS[name].options)
        met |= {how.split()[0] for how in routes.routes.values() if " " in how and ALONE not in how}
    assert met == kinds
