"""Networks and losses that could give wrong numbers silently: refused, or computed exactly."""

import pytest
import torch
from _gradient_truth import assert_exact, loop
from torch import Tensor, nn
from torch.nn import functional as F

from gradbench.errors import GradbenchError
from gradbench.gradients import explain, outputs, squared_norms


class Function(nn.Module):
    """Two linear layers and a function that puts them together."""

    def __init__(self, function):
        super().__init__()
        self.a, self.b, self.function = nn.Linear(192, 6), nn.Linear(6, 4), function
        self.three = nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x.flatten(1))


def network(function) -> nn.Module:
    torch.manual_seed(0)
    return Function(function).double().eval()


def images(count: int = 5) -> Tensor:
    torch.manual_seed(1)
    return torch.rand(count, 3, 8, 8, dtype=torch.float64)


def sorted_inside(net: Function, x: Tensor) -> Tensor:
    order = x.sum(1).argsort()
    return net.b(net.a(x[order]).tanh()[order.argsort()])


def last_ones_swapped(net: Function, x: Tensor) -> Tensor:
    swap = torch.arange(len(x))
    swap[-2:] = swap[-2:].flip(0) if len(x) > 2 else swap[-2:]
    return net.b(net.a(x[swap]).tanh()[swap])


def experts(net: Function, x: Tensor) -> Tensor:
    high = x.mean(1) > 0.5
    h = torch.zeros(len(x), 6, dtype=x.dtype)
    h[high], h[~high] = net.a(x[high]), net.a(x[~high]).tanh()
    return net.b(h)


def picked(net: Function, x: Tensor) -> Tensor:
    return net.b(net.a(x) * net.three[torch.tensor([0, 0, 1, 2, 3, 4])])


EXACT = {
    "sorted": sorted_inside,
    "swapped": last_ones_swapped,
    "experts": experts,
    "picked": picked,
}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("chunk", [2, 3, 5])
def test_images_that_move_about_are_computed_exactly(name, chunk):
    net, x = network(EXACT[name]), images()
    assert_exact(squared_norms(net, x, chunk=chunk).values, loop(net, x))


def test_one_class_of_experts_without_an_image():
    net = network(experts)
    x = images() * 0.1
    assert_exact(squared_norms(net, x).values, loop(net, x))


MIXING = {
    "cumulated": lambda net, x: net.b(torch.cumsum(net.a(x).tanh(), 0)),
    "from below": lambda net, x: net.b(torch.cumsum(net.a(x).tanh().flip(0), 0).flip(0)),
    "lower triangle": lambda net, x: net.b(torch.ones(len(x), len(x)).tril().to(x) @ net.a(x)),
    "in pairs only": lambda net, x: net.b(net.a(x - x.mean(0) if len(x) == 2 else x)),
}


@pytest.mark.parametrize("name", MIXING)
def test_networks_that_mix_images_are_refused(name):
    with pytest.raises(GradbenchError, match="mixes the images"):
        squared_norms(network(MIXING[name]), images(), chunk=3)


LOSSES = {
    "mean over the batch": lambda z: z.square().sum(1) / len(z),
    "of the images' mean": lambda x, z: (z - x.mean()).square().sum(1),
    "weighted by others": lambda z: z.square().sum(1) * z.detach().softmax(0).sum(1),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_that_mix_images_are_refused(name):
    with pytest.raises(GradbenchError, match="mixes the images"):
        squared_norms(network(lambda net, x: net.b(net.a(x))), images(), loss=LOSSES[name])


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda z: (z * torch.rand_like(z)).sum(1), "random numbers"),
        (lambda z: (z - 100).sqrt().sum(1), "not finite"),
        (lambda z: 1e200 * z.sum(1), "not all finite"),
    ],
)
def test_losses_without_a_sound_value_are_refused(loss, message):
    with pytest.raises(GradbenchError, match=message):
        squared_norms(network(lambda net, x: net.b(net.a(x))), images(), loss=loss)


def test_complex_parameters_are_refused_by_name():
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3, dtype=torch.cfloat))
    with pytest.raises(GradbenchError, match=r"1\.weight is complex"):
        squared_norms(net, images())


def test_half_precision_networks_do_not_overflow_in_the_fallback():
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).half()
    x = images().half()

    def loss(z: Tensor) -> Tensor:
        return (300 * z.float()).sum(1)

    rules, alone = (
        squared_norms(net, x, loss=loss, routes=r).values for r in (None, "one image at a time")
    )
    torch.testing.assert_close(rules, alone, rtol=1e-3, atol=0)


@pytest.mark.parametrize("route", [None, "one image at a time"])
def test_gradient_hooks_of_the_caller_change_nothing_and_stay(route):
    net, x = network(lambda net, x: net.b(net.a(x).tanh())), images()
    truth = loop(net, x)
    net.a.weight.register_hook(lambda g: g * 3)
    net.a.register_full_backward_hook(lambda module, into, out: (out[0] @ module.weight * 2,))
    assert_exact(squared_norms(net, x, routes=route).values, truth)
    net.a._backward_hooks.clear()
    net(x).sum().backward()
    tripled = net.a.weight.grad
    net.a.weight._backward_hooks.clear()
    net.a.weight.grad = None
    net(x).sum().backward()
    torch.testing.assert_close(tripled, 3 * net.a.weight.grad)


def test_a_hook_that_is_part_of_the_network_is_named():
    kept = {}
    net = network(lambda net, x: net.b(net.a(x).tanh()) + kept["a"][:, :4])
    net.a.register_forward_hook(lambda module, inputs, output: kept.update(a=output))
    with pytest.raises(GradbenchError, match="without the hooks on 'a'"):
        squared_norms(net, images())


class Counting(Function):
    """Counts images in a buffer."""

    def __init__(self):
        super().__init__(lambda net, x: net.b(net.a(x)))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return super().forward(x)


def test_buffers_come_back():
    net = Counting().double()
    squared_norms(net, images())
    assert net.seen == 0


def test_layout_that_only_one_image_can_take():
    class Folding(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(36, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x).view(len(x) * 4, 1, 6, 6)
            return self.fc(x.view(len(x) // 4, 4, 36).mean(1))

    net, x = Folding().eval(), images().float()
    exact = squared_norms(net, x, precision="float64").values
    torch.testing.assert_close(squared_norms(net, x).values.double(), exact, rtol=1e-4, atol=0)
    torch.testing.assert_close(outputs(net, x), net(x))


def test_explain_tells_what_a_batch_does(capsys):
    routes = {line.name: line.route for line in explain(network(sorted_inside), images())}
    assert routes.pop("three") == "unused"
    assert set(routes.values()) == {"one image at a time"}


def test_outputs_refuses_what_the_engine_refuses():
    for function in (lambda net, x: F.dropout(net.a(x)), lambda net, x: net.a(x) / 0):
        with pytest.raises(GradbenchError):
            outputs(network(function), images())


def test_a_network_that_was_changed_is_looked_at_again():
    net, x = network(lambda net, x: net.b(net.a(x))), images()
    squared_norms(net, x)
    net.function = MIXING["cumulated"]
    with pytest.raises(GradbenchError, match="mixes the images"):
        squared_norms(net, x)
