"""Routes of one rule agree with each other; the cost model chooses between them by shapes."""

import pytest
import torch
from torch.nn import functional as F

from gradbench.gradients.convolution import BLOCK_ELEMENTS, Conv2d, conv2d_weight_norm
from gradbench.gradients.rules import linear_weight_norm

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")

GEOMETRIES = [
    ((3, 3), {"padding": 1}),
    ((3, 3), {"padding": (2, 1), "stride": (2, 1)}),
    ((2, 3), {"stride": 3, "dilation": (2, 1)}),
    ((3, 3), {"padding": "same", "groups": 2}),
    ((4, 4), {"padding": "same"}),
    ((1, 1), {"stride": 2}),
    ((1, 1), {"stride": 2, "padding": 1, "groups": 2}),
]


@pytest.mark.parametrize(("kernel", "options"), GEOMETRIES)
def test_routes_of_a_convolution_agree(kernel, options):
    torch.manual_seed(0)
    x = torch.randn(3, 4, 9, 8, dtype=torch.float64)
    weight = torch.randn(6, 4 // options.get("groups", 1), *kernel, dtype=torch.float64)
    y = F.conv2d(x, weight, **options)
    delta = torch.randn_like(y)
    usual = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    conv = Conv2d.of_call(weight, **(usual | options))
    truth = []
    for image, d in zip(x.split(1), delta.split(1)):
        w = weight.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(F.conv2d(image, w, **options), w, d)
        truth.append(gradient.square().sum())
    for route in ("direct", "gram"):
        torch.testing.assert_close(conv2d_weight_norm(x, delta, conv, route), torch.stack(truth))


def test_blocks_of_the_direct_route_agree(monkeypatch):
    x, delta = torch.rand(5, 4, 6, 6), torch.rand(5, 3, 6, 6)
    conv = Conv2d((3, 3), padding=(1, 1, 1, 1))
    whole = conv2d_weight_norm(x, delta, conv, "direct")
    monkeypatch.setitem(BLOCK_ELEMENTS, "cpu", 300)
    torch.testing.assert_close(conv2d_weight_norm(x, delta, conv, "direct"), whole)


def test_routes_of_a_linear_layer_agree():
    torch.manual_seed(0)
    x, delta = (torch.randn(3, 2, 5, c, dtype=torch.float64) for c in (4, 7))
    direct, gram = (linear_weight_norm(x, delta, route) for route in ("direct", "gram"))
    torch.testing.assert_close(direct, gram)
    product = torch.einsum("bstc,bstp->bcp", x, delta)
    torch.testing.assert_close(direct, product.square().sum((1, 2)))


def test_gram_never_negative():
    x, delta = torch.ones(1, 512, 2, 2), torch.ones(1, 512, 2, 2)
    delta[..., 1] = -1  # the gradient is zero, its Gram matrices are not
    assert conv2d_weight_norm(x, delta, Conv2d((1, 1)), "gram").item() >= 0


def test_cifar_resnet18_uses_direct_early_and_gram_late():
    conv = Conv2d((3, 3), padding=(1, 1, 1, 1))
    routes = [
        conv.route((1, 64 * 2**s, 32 // 2**s, 32 // 2**s), (1, 64 * 2**s, 32 // 2**s, 32 // 2**s))
        for s in range(4)
    ]
    assert routes[0] == "direct"
    assert routes[2:] == ["gram", "gram"]
