"""Shared layers: trained as torch trains them, kept once, resumed, loaded; what cannot be, said."""

import copy

import pytest
import torch
from _dummies import TinyNet, images
from _two import CPU, tied
from safetensors.torch import load_file, save_file
from test_training import Cut, cut_after
from torch import nn

from gradbench.backbones.backbone import Backbone, digest
from gradbench.backbones.build import build_network
from gradbench.backbones.checkpoint import load_checkpoint, save_checkpoint
from gradbench.backbones.recipe import Recipe
from gradbench.backbones.shared_tensors import (
    check_separate,
    copy_network,
)
from gradbench.backbones.training import train, train_distributed
from gradbench.backbones.workers import Worker
from gradbench.errors import GradbenchError
from gradbench.support.tensors import save_tensors

RECIPE = Recipe(epochs=3, batch=16, lr=0.05, pad=1, flip=True, precision="float32")


def tied_tensor() -> nn.Module:
    """Return a network whose two layers share one tensor and not the other."""
    net = tied()
    net[3] = nn.Conv2d(6, 6, 3, padding=1)
    net[3].weight = net[2].weight
    return net


def shared_buffer() -> nn.Module:
    """Return a network of two modules with one buffer."""
    net = tied()
    net[0].register_buffer("index", torch.arange(6.0).view(1, 6, 1, 1))
    net[2].register_buffer("index", net[0].index)
    return net


def transposed() -> nn.Module:
    """Return a network with a parameter that is not contiguous, and a part without any."""
    net = tied()
    net[-1].weight = nn.Parameter(torch.randn(6, 3).t())
    net.add_module("empty", nn.ModuleDict({"nothing": nn.ModuleList()}))
    net.empty.forward = lambda x: x
    return net


def expanded_buffer() -> nn.Module:
    """Return a network with a buffer whose numbers share memory."""
    net = tied()
    net.register_buffer("mask", torch.ones(1).expand(5))
    return net


def frozen() -> nn.Module:
    """Return a network with a parameter that is not to be trained."""
    net = tied()
    net[0].weight.requires_grad_(False)
    return net


def normed(norm) -> nn.Module:
    """Return a network with a weight that is computed from parameters."""
    net = tied()
    norm(net[0])
    return net


NETWORKS = {
    "layer": tied,
    "tensor": tied_tensor,
    "buffer": shared_buffer,
    "transposed": transposed,
    "expanded buffer": expanded_buffer,
    "frozen": frozen,
    "weight_norm": lambda: normed(nn.utils.weight_norm),
    "spectral_norm": lambda: normed(nn.utils.spectral_norm),
    "parametrized weight_norm": lambda: normed(nn.utils.parametrizations.weight_norm),
    "parametrized spectral_norm": lambda: normed(nn.utils.parametrizations.spectral_norm),
}


def backbone(build=tied) -> Backbone:
    torch.manual_seed(3)
    return Backbone(build(), [0.4], [0.3], ("left", "right", "top"), (1, 8, 8))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", NETWORKS)
def test_trained_cut_resumed_kept_and_loaded(tmp_path, monkeypatch, kind):
    whole, cut, resumed, loaded = (backbone(NETWORKS[kind]) for _ in range(4))
    before = {n: t.clone() for n, t in whole.network.state_dict().items()}
    history = train(whole, images(66), RECIPE, 0, tmp_path / "whole", Worker(CPU))
    with monkeypatch.context() as patch:
        cut_after(patch, 6)
        with pytest.raises(Cut):
            train(cut, images(66), RECIPE, 0, tmp_path / "cut", Worker(CPU))
    assert (
        train(resumed, images(66), RECIPE, 0, tmp_path / "cut", Worker(CPU))["loss"]
        == history["loss"]
    )
    assert digest(whole) == digest(resumed)
    save_checkpoint(tmp_path / "f.safetensors", whole.network, {})
    load_checkpoint(loaded.network, tmp_path / "f.safetensors")
    assert digest(whole) == digest(loaded)
    changed = [n for n, t in whole.network.state_dict().items() if not torch.equal(t, before[n])]
    assert ("0.weight" in changed) is (kind != "frozen" and "norm" not in kind)
    assert "2.weight" in changed
    pixels = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(whole(pixels), loaded.eval()(pixels))


def test_two_processes_train_shared_layers(pool, tmp_path):
    one, two = backbone(), backbone()
    train(one, images(66), RECIPE, 0, tmp_path / "one", Worker(CPU))
    train_distributed(pool, two, images(66), RECIPE, 0, tmp_path / "two")
    pairs = zip(one.network.state_dict().values(), two.network.state_dict().values(), strict=True)
    for own, other in pairs:
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-4)
    assert two.network[3] is two.network[2]


def test_a_parametrized_network_in_several_processes_is_one_sentence(pool, tmp_path):
    net = backbone(NETWORKS["parametrized weight_norm"])
    with pytest.raises(GradbenchError, match=r"devices=2: what training .*take devices=1$"):
        train_distributed(pool, net, images(66), RECIPE, 0, tmp_path)


# checkpoints of others


def test_any_of_its_names_gives_a_shared_tensor(tmp_path):
    good = tied()
    for absent in ("2.", "3."):
        state = {n: t.clone() for n, t in good.state_dict().items() if not n.startswith(absent)}
        torch.save(state, tmp_path / "f.pt")
        net = tied()
        load_checkpoint(net, tmp_path / "f.pt")
        assert torch.equal(net[2].weight, good[2].weight)


@pytest.mark.parametrize("buffer", [torch.ones(1).expand(5), torch.ones(3, 5).T])
def test_a_buffer_with_gaps_keeps_both_of_its_names(tmp_path, buffer):
    def sharing(buffer: torch.Tensor) -> nn.Module:
        net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        for part in net:
            part.register_buffer("mask", buffer)
        return net

    save_checkpoint(tmp_path / "f.safetensors", sharing(buffer * 3), {})
    net = sharing(buffer)
    load_checkpoint(net, tmp_path / "f.safetensors")
    assert net[0].mask is net[1].mask
    assert torch.equal(net[1].mask, buffer * 3)


def test_other_weights_under_two_names_of_one_tensor(tmp_path):
    state = {n: t.clone() for n, t in tied().state_dict().items()}
    state["3.bias"] += 1
    save_file(state, tmp_path / "f.safetensors")
    net = tied()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(GradbenchError, match=r"other weights in 2.bias than in 3.bias, which are"):
        load_checkpoint(net, tmp_path / "f.safetensors")
    assert all(map(torch.equal, net.state_dict().values(), before.values()))


# what is refused


def two_parameters() -> nn.Module:
    net = tied_tensor()
    net[3].weight = nn.Parameter(net[2].weight.data)
    return net


def a_part() -> nn.Module:
    net = tied()
    net[0].register_parameter("part", nn.Parameter(net[-1].weight.data[1:]))
    return net


def buffer_of_parameter() -> nn.Module:
    net = tied()
    net.register_buffer("seen", net[0].weight.data)
    return net


@pytest.mark.parametrize(
    ("build", "names"),
    [(two_parameters, ("2.weight", "3.weight")), (a_part, ("0.part", "7.weight")),
     (buffer_of_parameter, ("seen", "0.weight"))],
)  # fmt: skip
def test_tensors_that_share_memory_and_are_two_are_not_trained(tmp_path, build, names):
    with pytest.raises(GradbenchError, match=r"share memory and are two tensors") as caught:
        train(backbone(build), images(30), RECIPE, 0, tmp_path / "work", Worker(CPU))
    assert all(name in str(caught.value) for name in names)
    assert not (tmp_path / "work").exists()
    # to load it is another matter: the values are those of the file
    save_checkpoint(tmp_path / "f.safetensors", build(), {})
    load_checkpoint(build(), tmp_path / "f.safetensors")


def test_an_expanded_parameter_is_not_trained():
    net = nn.Linear(1, 3)
    net.bias = nn.Parameter(torch.zeros(1).expand(3))
    with pytest.raises(GradbenchError, match="parameter bias is an expanded tensor"):
        check_separate(net)


def test_a_network_without_parameters_is_not_trained(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    net.requires_grad_(False)
    with pytest.raises(GradbenchError, match="no parameter that could be trained"):
        train(backbone(lambda: net), images(30), RECIPE, 0, tmp_path, Worker(CPU))


class Lazy(nn.Sequential):
    def __init__(self, classes, channels):
        super().__init__(nn.Flatten(), nn.LazyLinear(classes))


class Remembers(TinyNet):
    def get_extra_state(self):
        return {"calls": 3}

    def set_extra_state(self, state):
        pass


class Sparse(TinyNet):
    def __init__(self, classes, channels):
        super().__init__(classes, channels)
        self.register_buffer("graph", torch.eye(3).to_sparse())


class Nested(TinyNet):
    def __init__(self, classes, channels):
        super().__init__(classes, channels)
        self.register_buffer("graph", torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]))


class Wide(TinyNet):
    def __init__(self, classes, channels):
        super().__init__(classes, channels)
        self.register_buffer("phases", torch.ones(3, dtype=torch.complex128))


class Nowhere(TinyNet):
    def __init__(self, classes, channels):
        super().__init__(classes, channels)
        self.to("meta")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("kind", "text"),
    [(Lazy, "1.weight has no size before the first pass"),
     (Remembers, "_extra_state of its state is a dict, no tensor"),
     (Sparse, "graph of its state is a sparse"),
     (Nested, "graph of its state is a sparse"),
     (Wide, "phases of its state is of complex128"),
     (Nowhere, "conv.weight of its state is a tensor without numbers")],
)  # fmt: skip
def test_networks_that_could_not_be_kept_are_refused_when_built(kind, text):
    config = {"_target_": f"{__name__}.{kind.__name__}", "arguments": {"classes": 3, "channels": 1}}
    with pytest.raises(GradbenchError, match=text):
        build_network(config)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_copy_of_computed_weights():
    net = normed(nn.utils.weight_norm)
    net(torch.rand(2, 1, 8, 8)).sum().backward()
    other = copy_network(net)
    assert net[0].weight.grad_fn is not None  # the original is left alone
    pixels = torch.rand(2, 1, 8, 8)
    assert torch.equal(net(pixels), other(pixels))
    assert other[2] is other[3]


def test_views_and_gaps_are_written_in_full(tmp_path):
    both = torch.arange(12.0).view(3, 4)
    given = {
        **{"all": both, "again": both, "row": both[1], "turned": both.t(), "gaps": both[:, ::2]},
        **{"wide": torch.ones(1).expand(4), "no": torch.empty(0), "none": torch.empty(0)},
    }
    save_tensors(given, tmp_path / "f.safetensors", {"a": "b"}, torch.float64)
    found = load_file(tmp_path / "f.safetensors")
    assert found.keys() == given.keys()
    assert all(torch.equal(found[name], given[name].double()) for name in given)
