"""Closed forms of the last layer against autograd in float64, and what is refused."""

import weakref
from dataclasses import replace

import pytest
import torch
from _dummies import network
from torch import Tensor, nn
from torch.nn import functional as F

from gradbench.errors import GradbenchError
from gradbench.gradients import squared_norms
from gradbench.gradients.last_layer import CLASS_LOSSES, LastLayer, last_layer, uniform_l1

CLASSES, WIDTH = 5, 4
SEPARABLE = ("bce", "mse", "mse_max")


class Head(nn.Module):
    """A linear layer that is not the last, and one that is."""

    def __init__(self, bias: bool = True):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6)
        self.hidden, self.fc = nn.Linear(6, WIDTH), nn.Linear(WIDTH, CLASSES, bias=bias)

    def features(self, x: Tensor) -> Tensor:
        return torch.tanh(self.hidden(F.relu(self.bn(self.conv(x)), inplace=True).mean((2, 3))))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))


class Changed(Head):
    """The same layers with another end."""

    def __init__(self, end):
        super().__init__()
        self.end = end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self, x)


@pytest.fixture
def model() -> nn.Module:
    return Head().double().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(7, 1, 6, 6, dtype=torch.float64)


def class_loss(name: str, z: Tensor, target: Tensor) -> Tensor:
    """J(z, target) of one image, written out; target is one-hot or all ones."""
    if name == "ce":
        return -(target * F.log_softmax(z, dim=0)).sum()
    if name == "bce":
        return F.binary_cross_entropy_with_logits(z, target)
    return F.mse_loss(z, target * z.max().detach() if name == "mse_max" else target)


def gradients(model: nn.Module, images: Tensor, name: str, targets: Tensor) -> tuple[Tensor, ...]:
    """The truth: a backward pass per image and target, (B, T, N, H) and (B, T, N)."""
    found = []
    for image in images.split(1):
        for target in targets:
            loss = class_loss(name, model(image)[0], target.to(images))
            found.append(torch.autograd.grad(loss, (model.fc.weight, model.fc.bias)))
    shape = (len(images), len(targets))
    return tuple(torch.stack(part).unflatten(0, shape) for part in zip(*found))


@pytest.mark.parametrize("name", CLASS_LOSSES)
def test_every_class_equals_autograd(model, images, name):
    weight, bias = gradients(model, images, name, torch.eye(CLASSES))
    last = last_layer(model, images)
    deltas = last.class_deltas(name)
    torch.testing.assert_close(deltas, bias, rtol=1e-10, atol=1e-15)
    full = deltas.unsqueeze(3) * last.features[:, None, None]
    torch.testing.assert_close(full, weight, rtol=1e-10, atol=1e-15)
    on_weight, on_bias = last.class_squared_norms(name)
    torch.testing.assert_close(on_weight, weight.square().sum((2, 3)), rtol=1e-10, atol=0)
    torch.testing.assert_close(on_bias, bias.square().sum(2), rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", CLASS_LOSSES)
def test_introspective_forms_equal_autograd(model, images, name):
    last = last_layer(model, images)
    weight, _ = gradients(model, images, name, torch.eye(CLASSES))
    rows = weight.diagonal(dim1=1, dim2=2).transpose(1, 2).flatten(1)  # row i of pass i
    sequential = last.introspective(name, "sequential", normalise=False)
    torch.testing.assert_close(sequential, rows, rtol=1e-10, atol=1e-15)
    weight, _ = gradients(model, images, name, torch.ones(1, CLASSES))
    fast = last.introspective(name, "fast", normalise=False)
    torch.testing.assert_close(fast, weight.flatten(1), rtol=1e-10, atol=1e-15)
    unit = last.introspective(name)
    torch.testing.assert_close(unit, F.normalize(rows), rtol=1e-10, atol=1e-15)
    assert unit.shape == (7, CLASSES * WIDTH)


def test_introspective_forms_agree_for_separable_losses_alone(model, images):
    last = last_layer(model, images)
    for name in CLASS_LOSSES:
        sequential, fast = (last.introspective(name, form) for form in ("sequential", "fast"))
        assert torch.equal(sequential, fast) == (name in SEPARABLE)
        if name == "ce":
            assert ((sequential - fast).norm(dim=1) > 0.1).all()


@pytest.mark.parametrize("name", ["bce", "mse", "ce"])
def test_the_fast_form_has_the_norms_of_the_engine(model, images, name):
    loss = {"ce": "ce_sum_one_hot"}.get(name, name)
    every = squared_norms(model, images, loss=loss, parameters=["fc.weight"])
    fast = last_layer(model, images).introspective(name, "fast", normalise=False)
    torch.testing.assert_close(fast.square().sum(1), every.values[:, 0], rtol=1e-12, atol=0)


def test_uniform_l1_equals_autograd(model, images):
    truth = []
    for image in images.split(1):
        log_p = F.log_softmax(model(image)[0], 0)
        kl = F.kl_div(log_p, torch.full_like(log_p, 1 / CLASSES), reduction="sum")
        truth.append(torch.autograd.grad(kl, model.fc.weight)[0].abs().sum())
    last = last_layer(model, images)
    found = uniform_l1(last.features, last.logits)
    torch.testing.assert_close(found, torch.stack(truth), rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", CLASS_LOSSES)
def test_saturated_logits_keep_their_digits(name):
    logits = torch.tensor([[40.0, -3.0, -40.0], [0.0, 41.0, 38.0], [-40.0, -40.0, 40.0]])
    features = torch.rand(3, WIDTH)
    last = LastLayer("fc", features, logits)
    exact = replace(last, features=features.double(), logits=logits.double())
    z = exact.logits
    others = torch.stack([z[:, [j for j in range(3) if j != i]] for i in range(3)], 1)
    # Sums of positive terms alone: nothing cancels in the truth.
    truths = {
        "bce": -1 / (1 + z.exp()) / 3,
        "ce": -(others.logsumexp(2) - z.logsumexp(1, keepdim=True)).exp(),
    }
    if name in truths:
        on = last.class_deltas(name).diagonal(dim1=1, dim2=2)
        torch.testing.assert_close(on.double(), truths[name], rtol=1e-5, atol=0)
    for kind in (lambda x: x.class_deltas(name), lambda x: x.introspective(name)):
        torch.testing.assert_close(kind(last).double(), kind(exact), rtol=1e-5, atol=0)
    for single, double in zip(last.class_squared_norms(name), exact.class_squared_norms(name)):
        torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-37)  # its range


def test_normalisation_survives_tiny_and_zero_gradients():
    logits = torch.tensor([[80.0, 81.0, 82.0], [5.0, 5.0, 5.0]])
    last = LastLayer("fc", torch.rand(2, WIDTH), logits)
    assert last.introspective("bce", normalise=False)[0].norm() == 0  # squares underflow
    norms = last.introspective("bce").norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(2), rtol=1e-5, atol=0)
    assert (last.introspective("mse_max")[1] == 0).all()


def test_chunks_and_precision(model, images):
    whole = last_layer(model, images)
    for chunk in (1, 3, 7):
        part = last_layer(model, images, chunk=chunk)
        torch.testing.assert_close(part.features, whole.features, rtol=1e-12, atol=0)
        torch.testing.assert_close(part.logits, whole.logits, rtol=1e-12, atol=0)
    half = last_layer(model.bfloat16(), images.bfloat16())
    assert (half.features.dtype, half.logits.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(half.logits.double(), whole.logits, rtol=0, atol=0.05)


def test_keeps_no_graph_and_no_larger_tensor(images):
    larger = []

    def end(model: Head, x: Tensor) -> Tensor:
        assert not any(tensor() is not None for tensor in larger)  # of the chunks before
        tokens = x.sub_(0.5).flatten(2).repeat(1, 9, 1)
        larger.append(weakref.ref(tokens))
        return model.fc(tokens[:, 0, :WIDTH])

    kept = images.clone()
    last = last_layer(Changed(end).double().eval(), images, chunk=2)
    assert len(larger) == 4
    assert not last.features.requires_grad
    assert torch.equal(images, kept)


def test_finds_the_layer(model, images):
    assert last_layer(model, images).layer == "fc"
    assert last_layer(model, images, layer="fc").layer == "fc"
    alone = nn.Linear(3, 2).eval()
    assert last_layer(alone, torch.rand(4, 3)).layer == ""
    backbone = network()
    assert last_layer(backbone, torch.rand(5, 1, 8, 8)).layer == "network.fc"
    named = nn.Sequential(nn.Flatten(), nn.Linear(36, 3), nn.Dropout(), nn.Softplus(1e9)).eval()
    with torch.no_grad():
        named[1].bias += 9
    assert last_layer(named.double(), images).layer == "1"  # equal by value, another tensor


def test_works_without_gradients_around(model, images):
    expected = last_layer(model, images).features
    with torch.inference_mode():
        torch.testing.assert_close(last_layer(model, images + 0).features, expected)


REFUSED = {
    "scaled": (lambda m, x: 2 * m.fc(m.features(x)), "not the output of a Linear layer"),
    "changed in place": (
        lambda m, x: m.fc(m.features(x)).mul_(0.5),
        "not its weight times its input",
    ),
    "tokens": (lambda m, x: m.fc(m.features(x)[:, None].repeat(1, 3, 1)).mean(1), r"\(7, 3, 5\)"),
    "twice": (lambda m, x: m.fc(m.fc(m.features(x))[:, :WIDTH]), "more than once"),
    "weight elsewhere": (
        lambda m, x: m.fc(m.features(x) * F.softmax(m.fc.weight.sum(0), 0)),
        "more than once",
    ),
    "a list of weights": (
        lambda m, x: m.fc(m.features(x) + torch.stack([m.fc.weight])[0, 0]),
        "more than once",
    ),
    "tied": (lambda m, x: m.fc(m.features(x) + torch.stack(list(m.fc.bias))[:4]), "more than once"),
    "tuple": (lambda m, x: (m.fc(m.features(x)),), "gave tuple"),
    "not finite": (lambda m, x: m.fc(m.features(x) / 0), "not all finite"),
    "random": (lambda m, x: m.fc(F.dropout(m.features(x))), "random"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses_where_closed_forms_do_not_hold(images, case):
    end, reason = REFUSED[case]
    model = Changed(end).double().eval()
    with pytest.raises(GradbenchError, match=reason):
        last_layer(model, images)
    assert not model.fc._forward_hooks
    assert not model.hidden._forward_hooks


def test_a_shape_is_no_use_of_the_weight(images):
    def end(model: Head, x: Tensor) -> Tensor:
        return model.fc(model.features(x).to(model.fc.weight.dtype)[:, : model.fc.weight.shape[1]])

    assert last_layer(Changed(end).double().eval(), images).layer == "fc"


def test_refuses_a_last_layer_that_depends_on_the_image(images):
    def end(model: Changed, x: Tensor) -> Tensor:
        return (model.fc if x.mean() > 0 else model.twin)(model.features(x))

    model = Changed(end)
    model.twin = nn.Linear(WIDTH, CLASSES)
    model.double().eval()
    assert last_layer(model, images).layer == "fc"
    assert last_layer(model, -images).layer == "twin"
    with pytest.raises(GradbenchError, match=r"looked at 'fc' not called"):
        last_layer(model, torch.cat([images, -images]), chunk=7)


def test_refuses_a_computed_weight(model, images):
    nn.utils.parametrizations.weight_norm(model.fc)
    with pytest.raises(GradbenchError, match="computed from other parameters"):
        last_layer(model, images)


def test_refuses_to_choose_between_equal_layers(images):
    twins = Changed(lambda m, x: torch.stack([m.fc(m.features(x)), m.twin(m.features(x))]).mean(0))
    twins.twin = nn.Linear(WIDTH, CLASSES)
    twins.twin.load_state_dict(twins.fc.state_dict())
    with pytest.raises(GradbenchError, match="name the last one by layer, one of fc, twin"):
        last_layer(twins.double().eval(), images)


def test_refuses_bad_input(model, images):
    for arguments, reason in [
        ({"layer": "fcc"}, "did you mean fc"),
        ({"layer": "conv"}, "'conv' is a Conv2d"),
        ({"layer": "hidden"}, "not the output of a Linear layer"),
        ({"chunk": 0}, "chunk 0"),
    ]:
        with pytest.raises(GradbenchError, match=reason):
            last_layer(model, images, **arguments)
    with pytest.raises(GradbenchError, match="no images"):
        last_layer(model, images[:0])
    with pytest.raises(GradbenchError, match="no Linear layer"):
        last_layer(nn.Sequential(nn.Conv2d(1, 3, 6), nn.Flatten()).double(), images)
    last = last_layer(model, images)
    for call in (last.class_deltas, last.class_squared_norms, last.introspective):
        with pytest.raises(GradbenchError, match="no class loss named 'cce': did you mean ce"):
            call("cce")
    with pytest.raises(GradbenchError, match="did you mean fast"):
        last.introspective(form="fasst")
    model.train()
    with pytest.raises(GradbenchError, match="training mode"):
        last_layer(model, images)


def test_the_model_comes_back_as_it_was(model, images):
    seen = []
    model.bn.train(False)
    model.hidden.weight.requires_grad_(False)
    handle = model.fc.register_forward_hook(lambda *call: seen.append(len(call[2])))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kept = images.clone()
    last_layer(model, images, chunk=3)
    assert seen == [3, 3, 1]
    handle.remove()

    def fail(*_):
        raise ValueError("halfway")

    with model.bn.register_forward_hook(fail), pytest.raises(ValueError, match="halfway"):
        last_layer(model, images)
    assert torch.equal(images, kept)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["hidden.weight"]
    assert all(p.grad is None for p in model.parameters())
    assert not any(module.training or module._forward_hooks for module in model.modules())
