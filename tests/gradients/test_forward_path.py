"""The checks of a network hold for the path that they saw, whatever switches it to another one."""

import copy
from types import SimpleNamespace

import pytest
import torch
from _gradient_networks import Folded
from _gradient_truth import ALONE, assert_exact, loop, randomise
from torch import Tensor, nn
from torch.nn import functional as F

from gradbench.errors import GradbenchError
from gradbench.gradients import squared_norms


class Switched(nn.Module):
    """Two linear layers, and what an object that it holds says of the features between them."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(12, 6), nn.Linear(6, 5)
        self.config = SimpleNamespace(
            centre=False,
            share=0.0,
            mix=torch.eye(4, dtype=torch.float64),
            names={"how": "no"},
            act=nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        config, h = self.config, self.a(x.flatten(1))
        h = config.act(h)
        if config.centre:
            h = h - h.mean(0)
        h = h - config.share * h.mean(0)
        if config.names["how"] == "sorted":
            h = h.sort(0).values
        return self.b(config.mix[: len(h), : len(h)] @ h)


def others(h: Tensor) -> Tensor:
    return h - h.mean(0)


def swap_mix(net: Switched) -> None:
    net.config.mix = torch.full((4, 4), 0.25, dtype=torch.float64)


def fill_mix(net: Switched) -> None:
    net.config.mix.fill_(0.25)


def wrap(net: Switched) -> None:
    inner = net.a.forward
    net.a.forward = lambda x: others(inner(x))


SWITCHES = {
    "a flag": lambda net: setattr(net.config, "centre", True),
    "a number": lambda net: setattr(net.config, "share", 1.0),
    "a word in a dictionary": lambda net: net.config.names.update(how="sorted"),
    "a tensor": swap_mix,
    "a tensor in place": fill_mix,
    "another function": lambda net: setattr(net.config, "act", others),
    "a forward": wrap,
    "a method of a class": lambda net: setattr(Switched, "__call__", centred_call),
    "a hook": lambda net: net.a.register_forward_hook(lambda m, i, o: others(o)),
    "a module": lambda net: setattr(net, "a", nn.Sequential(net.a, Centre())),
}


class Centre(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return others(x)


def centred_call(net: Switched, x: Tensor) -> Tensor:
    return nn.Module.__call__(net, others(x))


def images(count: int = 4) -> Tensor:
    torch.manual_seed(1)
    return torch.rand(count, 3, 2, 2, dtype=torch.float64)


def switched() -> nn.Module:
    torch.manual_seed(0)
    return Switched().double().eval()


@pytest.mark.parametrize("name", SWITCHES)
def test_a_network_that_is_switched_is_checked_again(name, monkeypatch):
    net = switched()
    if name == "a method of a class":
        monkeypatch.setattr(Switched, "__call__", nn.Module.__call__, raising=False)
    squared_norms(net, images())
    SWITCHES[name](net)
    for _ in range(2):
        with pytest.raises(GradbenchError, match="mixes the images"):
            squared_norms(net, images())


def test_a_variable_of_a_closure_switches():
    how = "alone"

    class Closed(Switched):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if how == "alone" else others(super().forward(x))

    net = Closed().double().eval()
    squared_norms(net, images())
    how = "together"
    with pytest.raises(GradbenchError, match="mixes the images"):
        squared_norms(net, images())


def test_a_layer_in_training_mode_after_a_first_call():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.BatchNorm1d(6)).double().eval()
    squared_norms(net, images())
    net[2].train()
    with pytest.raises(GradbenchError, match="'2' is in training mode"):
        squared_norms(net, images())
    net.eval()
    net[2].forward = lambda x: F.batch_norm(x, None, None, training=True)
    with pytest.raises(GradbenchError, match="statistics of the batch"):
        squared_norms(net, images())


@pytest.mark.parametrize("count", [4, 3])
def test_another_layout_is_found_again(count):
    """Tokens folded side by side, then apart: equal shapes, other rows belong to an image."""
    torch.manual_seed(0)
    net = Folded(8, 6, False)
    holder = SimpleNamespace(apart=False)
    Held = type(
        "Held", (Folded,), {"apart": property(lambda self: holder.apart, lambda self, value: None)}
    )
    net.__class__ = Held
    net, seen = randomise(net), []
    x = torch.rand(count, 3, 8, 8, dtype=torch.float64)
    net.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    for apart in (False, True, False):
        holder.apart = apart
        truth = loop(net, x)
        seen.clear()
        found = squared_norms(net, x)
        assert_exact(found.values, truth)
        assert ALONE not in found.routes.values()
        assert seen == [count]  # the caller's hooks meet every image once


def test_sizes_and_gradients_that_are_switched_on_and_off():
    net, x = switched(), images()
    truth = loop(net, x)
    for count in (4, 2, 1, 3, 4, 2):
        net.a.requires_grad_(count % 2 == 0)
        assert_exact(squared_norms(net, x[:count]).values, truth[:count])
        assert net.a.weight.requires_grad == (count % 2 == 0)
    fresh = copy.deepcopy(net)
    assert_exact(squared_norms(fresh, x).values, truth)


def test_hooks_that_look_on_may_do_so_differently_every_time():
    net, passes, found = switched(), [], torch.zeros(12, 6, dtype=torch.float64)

    def keep(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        begin = sum(passes)
        passes.append(len(output))
        found[begin : begin + len(output)] = output.detach() * begin

    net.a.register_forward_hook(keep)
    for _ in range(3):
        squared_norms(net, images())
    assert passes == [4, 4, 4]


@pytest.mark.parametrize("in_place", [False, True])
def test_a_hook_that_begins_to_change_something(in_place):
    net, seen = switched(), []

    def change(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor | None:
        seen.append(len(output))
        if len(seen) < 2:
            return None
        if not in_place:
            return others(output)
        output.sub_(output.detach().mean(0))
        return None

    net.b.register_forward_hook(change)
    squared_norms(net, images())
    with pytest.raises(GradbenchError, match="a forward hook"):
        squared_norms(net, images())


def test_a_network_that_stays_is_not_looked_at_again():
    passes = []
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 5)).double().eval()
    net[2].forward = lambda h: passes.append(len(h)) or h.tanh()
    for count in (4, 2):
        squared_norms(net, images(count))
    passes.clear()
    for count in (4, 2, 4):
        squared_norms(net, images(count))
    assert passes == [4, 2, 4]
