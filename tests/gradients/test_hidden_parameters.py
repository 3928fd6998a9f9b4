"""A zero must not be a mistake: what autograd does not see is refused, what is unused stays 0."""

import pytest
import torch
from _gradient_truth import ALONE, assert_exact, loop
from torch import Tensor, nn
from torch.nn import functional as F

from gradbench.errors import GradbenchError
from gradbench.gradients import alignments, explain, squared_norms


class Net(nn.Module):
    """A trunk, a head, and a function that puts them together."""

    def __init__(self, function):
        super().__init__()
        self.trunk, self.norm, self.head = nn.Linear(12, 6), nn.LayerNorm(6), nn.Linear(6, 5)
        self.scale, self.places = nn.Parameter(torch.ones(())), None
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x.flatten(1))


def network(function) -> nn.Module:
    torch.manual_seed(0)
    return Net(function).double().eval()


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 2, 2, dtype=torch.float64)


def whole(net: Net, x: Tensor) -> Tensor:
    return net.head(net.norm(net.trunk(x)).tanh()) * net.scale


def in_inference_mode(net: Net, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return whole(net, x)


def for_several(net: Net, x: Tensor) -> Tensor:
    return whole(net, x) if len(x) == 1 else whole(net, x).detach()


WITHOUT_GRAPH = {
    "no_grad": torch.no_grad()(whole),
    "inference mode": in_inference_mode,
    "detached": lambda net, x: whole(net, x).detach(),
    "argmax": lambda net, x: F.one_hot(whole(net, x).argmax(1), 5).to(x),
    "class numbers": lambda net, x: whole(net, x).argmax(1),
    "rounded to whole numbers": lambda net, x: whole(net, x).long(),
    "through numpy": lambda net, x: torch.from_numpy(whole(net, x).detach().numpy()),
    "no parameter": lambda net, x: x,
    "for several images": for_several,
}


@pytest.mark.parametrize("name", WITHOUT_GRAPH)
@pytest.mark.parametrize("route", [None, ALONE])
def test_outputs_without_a_graph_are_refused(name, route):
    for parameters in (None, ["trunk.weight"]):
        with pytest.raises(GradbenchError, match="outputs have no autograd graph"):
            squared_norms(
                network(WITHOUT_GRAPH[name]),
                images(),
                parameters=parameters,
                routes=route,
                loss=lambda z: z.double().flatten(1).sum(1),
            )


def test_every_door_refuses_them():
    net = network(WITHOUT_GRAPH["argmax"])
    direction = {"head.bias": torch.ones(5)}
    for call in (
        lambda: alignments(net, images(), direction),
        lambda: explain(net, images()),
    ):
        with pytest.raises(GradbenchError, match="no autograd graph"):
            call()


def frozen_trunk(net: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        x = net.norm(net.trunk(x)).tanh()
    return net.head(x) * net.scale


def in_whole_numbers(net: Net, x: Tensor) -> Tensor:
    return net.head((net.norm(net.trunk(x)) * 1e6).long().to(x) * 1e-6) * net.scale


PARTLY = {
    "trunk without autograd": frozen_trunk,
    "trunk detached": lambda net, x: net.head(net.norm(net.trunk(x)).tanh().detach()) * net.scale,
    "trunk in whole numbers": in_whole_numbers,
    "weights as data": lambda net, x: net.head(
        F.layer_norm(
            F.linear(x, net.trunk.weight.data, net.trunk.bias.data),
            (6,),
            net.norm.weight.data,
            net.norm.bias.data,
        )
    )
    * net.scale,
    "a scale as a number": lambda net, x: net.head(net.norm(net.trunk(x))) * net.scale.item(),
}


@pytest.mark.parametrize("name", PARTLY)
@pytest.mark.parametrize("route", [None, ALONE])
def test_parameters_that_act_without_autograd_are_named(name, route):
    net, x = network(PARTLY[name]), images()
    before = {n: p.clone() for n, p in net.named_parameters()}
    hidden = r"changing scale changes" if "number" in name and "scale" in name else r"trunk\.weight"
    for _ in range(2):
        with pytest.raises(GradbenchError, match=hidden):
            squared_norms(net, x, routes=route)
    assert all(torch.equal(p, before[n]) for n, p in net.named_parameters())
    seen = squared_norms(net, x, parameters=["head.weight", "head.bias"], routes=route)
    truth = loop(net, x)
    assert_exact(seen.values, truth[:, [n.startswith("head") for n in before]])


def test_a_forward_that_was_replaced_by_one_without_autograd():
    net = network(whole)
    net.trunk.forward = torch.no_grad()(net.trunk.forward)
    with pytest.raises(GradbenchError, match=r"changing trunk\.weight, trunk\.bias changes"):
        squared_norms(net, images())


def test_experts_of_other_images_are_no_fault():
    def experts(net: Net, x: Tensor) -> Tensor:
        high = x.mean(1) > 0.5
        found = torch.zeros(len(x), 5, dtype=x.dtype)
        found[high] = net.head(net.norm(net.trunk(x[high])))
        found[~high] = net.head(x[~high, :6])
        return found

    net, low, x = network(experts), images() * 0.1, images()
    x[0] *= 0.1
    x[1:] = x[1:] * 0.1 + 0.8
    for batch in (low, x):
        found = squared_norms(net, batch)
        assert_exact(found.values, loop(net, batch))
        assert (found.values[:, found.names.index("scale")] == 0).all()

    def hidden(net: Net, x: Tensor) -> Tensor:
        with torch.no_grad():
            trunk = net.norm(net.trunk(x)) * (x.mean(1, keepdim=True) > 0.5)
        return net.head(x[:, :6] + trunk)

    net = network(hidden)
    with pytest.raises(GradbenchError, match="changing trunk"):
        squared_norms(net, x)


UNUSED = {
    "not called": lambda net, x: net.head(x[:, :6]),
    "times nothing": lambda net, x: net.head(x[:, :6]) + 0 * net.norm(net.trunk(x)).detach().sum(),
    "a decision that stands": lambda net, x: net.head(
        x[:, :6] * (net.norm(net.trunk(x)).detach().abs().sum(1, keepdim=True) > 0)
    ),
}


@pytest.mark.parametrize("name", UNUSED)
def test_what_has_no_effect_stays_zero(name):
    net, x = network(UNUSED[name]), images()
    found = squared_norms(net, x)
    assert_exact(found.values, loop(net, x))
    assert {n for n, r in found.routes.items() if r == "unused"} == {
        n for n in found.names if not n.startswith("head")
    }
    assert (squared_norms(net, x, parameters=["trunk.weight"]).values == 0).all()


def test_a_loss_may_leave_outputs_out():
    net, x = network(lambda net, x: torch.cat([net.head(x[:, :6]), net.trunk(x)], 1)), images()
    found = squared_norms(net, x, loss=lambda z: z[:, :5].square().sum(1))
    column = found.names.index("trunk.weight")
    assert (found.values[:, column] == 0).all()
    assert found.values.sum() > 0


def test_unused_parameters_are_tested_once():
    passes = []
    net = network(lambda net, x: passes.append(len(x)) or net.head(x[:, :6]))
    x = images(8)
    squared_norms(net, x, chunk=4)
    first = len(passes)
    squared_norms(net, x, chunk=4)
    assert passes[first:] == [4, 4]


def test_whole_numbers_among_the_parameters():
    net = network(lambda net, x: net.head(x[:, net.table]))
    net.table = nn.Parameter(torch.tensor([3, 1, 4, 1, 5, 9]), requires_grad=False)
    with pytest.raises(GradbenchError, match="changing table changes"):
        squared_norms(net, images())
    assert net.table.tolist() == [3, 1, 4, 1, 5, 9]
    assert (squared_norms(net, images(), parameters=["head.weight"]).values > 0).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_half_precision_sees_it_too(precision):
    net = network(frozen_trunk).float()
    with pytest.raises(GradbenchError, match=r"trunk\.weight"):
        squared_norms(net, images().float(), precision=precision)


class Silent(torch.autograd.Function):
    """A function that hands back no gradient."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return None


def test_a_function_without_a_gradient_behind_a_layer_is_refused():
    net = network(lambda net, x: net.head(Silent.apply(net.trunk(x))))
    with pytest.raises(GradbenchError, match=r"hands back no gradient|autograd does not see"):
        squared_norms(net, images())


def test_complex_tensors_of_parameters_are_exact():
    class Filter(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.head = nn.Parameter(torch.rand(1, 3, 2, 2, 2)), nn.Linear(12, 5)

        def forward(self, x):
            y = torch.fft.rfft2(x) * torch.view_as_complex(self.w)
            return self.head(torch.fft.irfft2(y, s=(2, 2)).flatten(1))

    torch.manual_seed(0)
    net, x = Filter().double().eval(), images()
    assert_exact(squared_norms(net, x).values, loop(net, x))
