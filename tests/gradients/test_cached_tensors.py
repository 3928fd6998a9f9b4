"""Networks that keep tensors made of parameters in evaluation mode: exact, or refused by name."""

from functools import lru_cache

import pytest
import torch
from _gradient_truth import ALONE, assert_exact, loop
from torch import Tensor, nn
from torch.nn import functional as F

from gradbench.errors import GradbenchError
from gradbench.gradients import alignments, outputs, squared_norms


class Attention(nn.Module):
    """Attention with a table of biases that is gathered afresh in training mode."""

    def __init__(self):
        super().__init__()
        self.qkv, self.table = nn.Linear(8, 24), nn.Parameter(torch.randn(2, 5))
        self.register_buffer("places", torch.randint(0, 5, (8, 8)), persistent=False)

    def gathered(self) -> Tensor:
        return self.table[:, self.places]

    def bias(self) -> Tensor:
        return self.gathered()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) + self.bias()).softmax(-1)
        return (weights @ v).transpose(1, 2).flatten(2)


class InDictionary(Attention):
    """As timm's LeViT and EfficientFormer: kept by device at the first pass in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.kept = {}

    @torch.no_grad()
    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        if mode and self.kept:
            self.kept = {}
        return self

    def bias(self) -> Tensor:
        if self.training:
            return self.gathered()
        key = str(self.table.device)
        if key not in self.kept:
            self.kept[key] = self.gathered()
        return self.kept[key]


class AtEval(Attention):
    """As the first LeViT and TinyViT: made by `eval()`, an attribute or a buffer."""

    buffer = False

    @torch.no_grad()
    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        if mode and hasattr(self, "ab"):
            del self.ab
        elif not mode and self.buffer:
            self.register_buffer("ab", self.gathered(), persistent=False)
        elif not mode:
            self.ab = self.gathered()
        return self

    def bias(self) -> Tensor:
        return self.gathered() if self.training else self.ab


class AsBuffer(AtEval):
    buffer = True


class Lazy(Attention):
    """Kept at the first pass, whatever the mode."""

    def __init__(self):
        super().__init__()
        self.kept = None

    def bias(self) -> Tensor:
        if self.kept is None:
            self.kept = self.gathered()
        return self.kept


class LazyAttribute(Attention):
    """Kept at the first pass, in an attribute that is not there before."""

    def bias(self) -> Tensor:
        if not hasattr(self, "kept"):
            self.kept = self.gathered()
        return self.kept


class Blocks(nn.Module):
    def __init__(self, kind: type[Attention]):
        super().__init__()
        self.a, self.b, self.fc = kind(), kind(), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.b(self.a(x[:, 0]).tanh()).mean(1))


def blocks(kind: type[Attention]) -> nn.Module:
    torch.manual_seed(0)
    return Blocks(kind).double().eval()


def images(count: int = 4) -> Tensor:
    torch.manual_seed(1)
    return torch.rand(count, 3, 8, 8, dtype=torch.float64)


def used(net: nn.Module, how: str) -> nn.Module:
    if how == "without autograd":
        with torch.no_grad():
            net(images())
    elif how != "fresh":
        found = net(images())
        if how == "backward":
            found.sum().backward()
            net.zero_grad()
    return net


def held(net: nn.Module) -> list:
    """What modules hold, by identity, and their modes."""
    return [
        (
            m.training,
            {
                k: list(map(id, v.values())) if isinstance(v, dict) else id(v)
                for k, v in vars(m).items()
            },
        )
        for m in (net.a, net.b)
    ]


@pytest.mark.parametrize("before", ["fresh", "without autograd", "with autograd", "backward"])
@pytest.mark.parametrize("kind", [InDictionary, AtEval, AsBuffer])
def test_kept_tables_have_their_gradients(kind, before):
    truth = loop(blocks(Attention), images())
    assert (truth[:, 0] > 0).all()
    net = used(blocks(kind), before)
    was = held(net)
    for chunk in (4, 3):
        for route in (None, ALONE):
            assert_exact(squared_norms(net, images(), chunk=chunk, routes=route).values, truth)
    found = squared_norms(net, images(), parameters=lambda n: n.startswith("a."))
    assert_exact(found.values, truth[:, :3])
    if before != "fresh":  # parameters that are not asked for may be kept, as by any other pass
        assert held(net) == was


def test_nothing_is_left_in_a_fresh_network():
    net = blocks(InDictionary)
    direction = {"a.table": torch.ones_like(net.a.table)}
    squared_norms(net, images())
    assert not net.a.kept
    assert alignments(net, images(), direction).products.abs().min() > 0
    assert not net.a.kept
    torch.testing.assert_close(outputs(net, images()), blocks(Attention)(images()).detach())
    assert not squared_norms(net, images()).values.isnan().any()


@pytest.mark.parametrize("before", ["without autograd", "with autograd", "backward"])
@pytest.mark.parametrize("kind", [Lazy, LazyAttribute])
def test_tables_that_training_mode_keeps_too_are_refused(kind, before):
    net = used(blocks(kind), before)
    with pytest.raises(GradbenchError, match="keeps tensors made of"):
        squared_norms(net, images(), chunk=2)
    others = ["a.qkv.weight", "fc.weight"]
    assert_exact(
        squared_norms(net, images(), parameters=others).values,
        loop(blocks(Attention), images())[:, [1, -2]],
    )


@pytest.mark.parametrize("kind", [InDictionary, AtEval])
def test_what_is_kept_of_other_weights_is_refused(kind):
    net = used(blocks(kind), "without autograd")
    with torch.no_grad():
        net.a.table.add_(torch.rand(2, 5))
    with pytest.raises(GradbenchError, match=r"keeps tensors made of a\.table.*no longer fit"):
        squared_norms(net, images())
    net.train()
    net.eval()
    assert (squared_norms(net, images()).values[:, 0] > 0).all()


class WithDropout(AtEval):
    """In training mode the module draws random numbers besides."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(super().forward(x), 0.5, self.training)


def test_what_cannot_be_computed_afresh_is_refused():
    net, x = blocks(WithDropout), images()
    before = torch.get_rng_state()
    with pytest.raises(GradbenchError, match=r"evaluation mode.*made of a\.table, b\.table, so"):
        squared_norms(net, x)
    assert torch.equal(torch.get_rng_state(), before)
    assert not net.a.training
    found = squared_norms(net, images(), parameters=["a.qkv.weight"])
    assert (found.values > 0).all()


class TrainingOnly(nn.Module):
    """A parameter without effect in evaluation mode, beside a constant tensor that is held."""

    def __init__(self):
        super().__init__()
        self.fc, self.noise = nn.Linear(8, 4), nn.Parameter(torch.zeros(8))
        self.mean = torch.full((8,), 0.5, dtype=torch.float64)

    def train(self, mode: bool = True) -> nn.Module:
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, 0, 0] - self.mean
        return self.fc(x + self.noise * x if self.training else x)


def test_a_parameter_of_training_alone_stays_zero():
    found = squared_norms(TrainingOnly().double().eval(), images())
    column = found.names.index("noise")
    assert (found.values[:, column] == 0).all()
    assert found.routes["noise"] == "unused"


class Chosen(nn.Module):
    """A tensor that is held takes the place of a parameter, of which it was not made."""

    def __init__(self):
        super().__init__()
        self.fc, self.learned = nn.Linear(8, 4), nn.Parameter(torch.randn(8))
        self.fixed: Tensor | None = torch.ones(8, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x[:, 0, 0] * (self.learned if self.fixed is None else self.fixed))


def test_a_tensor_in_place_of_a_parameter_is_no_cache_of_it():
    found = squared_norms(Chosen().double().eval(), images())
    assert found.values[:, found.names.index("learned")].tolist() == [0] * 4
    assert found.routes["learned"] == "unused"


@pytest.mark.parametrize("kind", [Lazy, LazyAttribute])
def test_tables_of_other_weights_that_no_mode_empties_are_refused(kind):
    net = used(blocks(kind), "without autograd")
    with torch.no_grad():
        net.a.table.add_(torch.rand(2, 5))
    with pytest.raises(GradbenchError, match=r"made of a\.table.* that no longer fit them, so"):
        squared_norms(net, images())


class Several(Blocks):
    """Two habits in one network, and a second output in training mode."""

    def __init__(self):
        super().__init__(InDictionary)
        self.b = AtEval()

    def forward(self, x: Tensor) -> Tensor:
        found = super().forward(x)
        return (found, found) if self.training else found


@pytest.mark.parametrize("before", ["fresh", "without autograd", "with autograd", "backward"])
def test_several_habits_in_one_network(before):
    net, same = Several().double(), blocks(Attention)
    for name, module in same.named_children():
        module.load_state_dict(net.get_submodule(name).state_dict())
        module.places = getattr(net.get_submodule(name), "places", None)
    truth = loop(same, images())
    assert_exact(squared_norms(used(net.eval(), before), images()).values, truth)


class Cosine(nn.Module):
    """Keeps the normalised weight of a layer of PyTorch's own for evaluation mode."""

    def __init__(self):
        super().__init__()
        self.fc, self.rows = nn.Linear(8, 4, bias=False), None

    def train(self, mode: bool = True) -> nn.Module:
        self.rows = None
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return F.linear(x[:, 0, 0], F.normalize(self.fc.weight))
        if self.rows is None:
            self.rows = F.normalize(self.fc.weight)
        return F.linear(x[:, 0, 0], self.rows)


class InBuffer(Cosine):
    """The same in a buffer."""

    def __init__(self):
        super().__init__()
        del self.rows
        self.register_buffer("rows", None, persistent=False)


@pytest.mark.parametrize("before", ["fresh", "without autograd", "with autograd", "backward"])
@pytest.mark.parametrize("kind", [Cosine, InBuffer])
def test_weights_that_the_module_above_keeps(kind, before):
    net = kind().double()
    truth = loop(net, images())
    used(net.eval(), before)
    for chunk in (4, 3):
        assert_exact(squared_norms(net, images(), chunk=chunk).values, truth)


class Cached(Attention):
    """Keeps its table where nobody sees it."""

    @lru_cache  # noqa: B019
    def bias(self) -> Tensor:
        return self.gathered()


@pytest.mark.parametrize("before", ["fresh", "without autograd"])
def test_tables_kept_out_of_sight_are_refused(before):
    net = used(blocks(Cached), before)
    message = r"made of a\.table, b\.table, so" if before == "without autograd" else "uses up"
    with pytest.raises(GradbenchError, match=message):
        squared_norms(net, images(), chunk=2)


class Merged(nn.Module):
    """A low-rank change of the weight that evaluation mode adds to it."""

    def __init__(self):
        super().__init__()
        self.weight, self.merged = nn.Parameter(torch.randn(4, 8)), False
        self.up, self.down = nn.Parameter(torch.randn(4, 2)), nn.Parameter(torch.randn(2, 8))

    @torch.no_grad()
    def train(self, mode: bool = True) -> nn.Module:
        if self.merged == mode:
            self.weight.add_((self.up @ self.down) * (-1 if mode else 1))
            self.merged = not mode
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.merged else self.weight + self.up @ self.down
        return F.linear(x[:, 0, 0], weight)


def test_merged_changes_of_weights_are_refused_and_stay():
    net = Merged().double().eval()
    weight = net.weight.clone()
    with pytest.raises(GradbenchError, match="tensors made of up, down, so"):
        squared_norms(net, images())
    assert torch.equal(net.weight, weight)
    found = squared_norms(net, images(), parameters=["weight"])
    assert_exact(found.values, loop(net, images())[:, :1])


class Remembers(nn.Module):
    """Keeps what it computed last: that is no table."""

    def __init__(self):
        super().__init__()
        self.fc, self.out = nn.Linear(8, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.features = self.fc(x[:, 0, 0]).tanh()
        return self.out(self.features)


def test_features_that_a_network_keeps_are_no_outputs():
    """They would be those of another pass, of one image: the loss is a function of the outputs."""
    net = Remembers().double().eval()
    with pytest.raises(GradbenchError, match="mixes the images"):
        squared_norms(net, images(), loss=lambda z: (z.sum(1) + net.features.sum(1)).square())
    truth = loop(net, images())
    assert_exact(squared_norms(net, images()).values, truth)
    assert len(net.features) == 4  # as after any other pass of these images


class MadeOnce(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.fc = nn.Linear(8, 4)
        self.double()
        self.weight = function(self.fc.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x[:, 0, 0], self.weight)


def test_a_graph_that_is_used_up_is_told():
    lasts = MadeOnce(lambda weight: weight + 1)  # this graph needs nothing that is freed
    assert_exact(squared_norms(lasts, images()).values, loop(lasts, images()))
    with pytest.raises(GradbenchError, match=r"keeps tensors.*uses up"):
        squared_norms(MadeOnce(torch.exp), images(), chunk=2)
