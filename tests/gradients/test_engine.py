"""What the engine promises around the numbers: choices, invariance, refusals, no traces."""

import gc
import subprocess
import sys
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gradbench.errors import GradbenchError
from gradbench.gradients import squared_norms
from gradbench.gradients.memory import default_chunk


class Small(nn.Module):
    """A convolution, a normalisation, an in-place ReLU and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 5)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x))


class Scaled(nn.Module):
    """A bare parameter in an expression that no rule knows."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,->bchw", x, self.factor)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Small().double().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(7, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_invariant_to_chunk_and_order(model, images):
    whole = squared_norms(model, images)
    order = torch.randperm(7)
    for chunk in (1, 2, 3, 7):
        part = squared_norms(model, images, chunk=chunk)
        torch.testing.assert_close(part.values, whole.values, rtol=1e-12, atol=0)
        torch.testing.assert_close(part.outputs, whole.outputs)
    shuffled = squared_norms(model, images[order])
    torch.testing.assert_close(shuffled.values, whole.values[order], rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "chosen", [["fc.bias", "conv.weight"], lambda n: n in ("conv.weight", "fc.bias")]
)
def test_choice_of_parameters(model, images, chosen):
    everything = squared_norms(model, images)
    found = squared_norms(model, images, parameters=chosen)
    assert found.names == ["conv.weight", "fc.bias"]
    columns = [everything.names.index(n) for n in found.names]
    torch.testing.assert_close(found.values, everything.values[:, columns], rtol=1e-12, atol=0)


def test_works_without_gradients_around(model, images):
    expected = squared_norms(model, images).values
    with torch.no_grad():
        torch.testing.assert_close(squared_norms(model, images).values, expected)
    with torch.inference_mode():
        torch.testing.assert_close(squared_norms(model, images + 0).values, expected)
    model.requires_grad_(False)
    torch.testing.assert_close(squared_norms(model, images).values, expected)


def test_callers_hooks_see_every_image_once_in_order(images):
    model = nn.Sequential(Scaled(), nn.Flatten(), nn.Linear(36, 3)).double()
    seen = []
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    found = squared_norms(model, images, chunk=3)
    assert found.routes["0.factor"] == "one image at a time"
    assert [len(s) for s in seen] == [3, 3, 1]
    assert torch.equal(torch.cat(seen), images)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_legacy_weight_norm_hooks_stay_part_of_the_network(images):
    model = nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(36, 3))).double()
    found = squared_norms(model, images)
    alone = [squared_norms(model, image).values for image in images.split(1)]
    torch.testing.assert_close(found.values, torch.cat(alone), rtol=1e-12, atol=0)
    assert (found.values > 0).all()


def state(model: nn.Module) -> list:
    tensors = {k: v.clone() for k, v in model.state_dict().items()}
    return [
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [p.grad for p in model.parameters()],
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        {k: v.tolist() for k, v in tensors.items()},
    ]


@pytest.mark.parametrize("fault", [None, "forward", "loss"])
def test_model_comes_back_as_it_was(model, images, fault):
    model.conv.weight.requires_grad_(False)
    passes = []

    def hook(module, inputs, output):
        passes.append(1)
        if fault == "forward" and len(passes) == 2:
            raise RuntimeError("half-way")

    def loss(z: Tensor) -> Tensor:
        if fault == "loss" and len(passes) == 2:
            raise RuntimeError("half-way")
        return z.sum(1)

    model.bn.register_forward_hook(hook)
    before = state(model)
    if fault is None:
        squared_norms(model, images, loss=loss, chunk=3)
    else:
        with pytest.raises(RuntimeError, match="half-way"):
            squared_norms(model, images, loss=loss, chunk=3)
    assert state(model) == before


def test_nothing_kept_alive_by_later_chunks_or_afterwards(model, images):
    kept, alive = [], []

    def hook(module, inputs, output):
        alive.append(sum(ref() is not None for ref in kept))
        kept.append(weakref.ref(output))

    model.conv.register_forward_hook(hook)
    gc.disable()
    try:
        squared_norms(model, images, chunk=2)
        assert alive == [0, 0, 0, 0]
        assert [ref() for ref in kept] == [None] * 4
    finally:
        gc.enable()


class Function(nn.Module):
    """A network that is one function of its input and of a linear layer."""

    def __init__(self, function):
        super().__init__()
        self.function, self.fc = function, nn.Linear(36, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.fc, x.flatten(1))


def overwrites(fc: nn.Linear, x: Tensor) -> Tensor:
    x = x.tanh()
    y = fc(x)
    x.zero_()
    return y


REFUSED = {
    "training": (lambda: Small().train(), "'bn' is in training mode"),
    "no statistics": (
        lambda: nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten()).eval(),
        "has no running statistics",
    ),
    "functional statistics": (
        lambda: Function(lambda fc, x: F.batch_norm(fc(x), None, None, fc.bias, training=True)),
        "statistics of the batch",
    ),
    "dropout": (
        lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(36, 2)),
        "random numbers",
    ),
    "functional dropout": (lambda: Function(lambda fc, x: fc(F.dropout(x))), "random numbers"),
    "mixes images": (lambda: Function(lambda fc, x: fc(x - x.mean(0))), "mixes the images"),
    "checkpoint": (
        lambda: Function(lambda fc, x: checkpoint(fc, x.requires_grad_(), use_reentrant=True)),
        "use_reentrant",
    ),
    "overwrites": (lambda: Function(overwrites), "changed in place"),
    "not finite": (lambda: Function(lambda fc, x: fc(x) / 0), "not all finite"),
    "a tuple": (lambda: Function(lambda fc, x: (fc(x), x)), "but gave tuple"),
    "rows": (lambda: Function(lambda fc, x: fc(x)[:3]), "one row of outputs per image"),
    "maps": (lambda: Function(lambda fc, x: fc(x)[..., None]), "needs logits"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_networks(name, images):
    make, message = REFUSED[name]
    model = make().double()
    before = state(model)
    with pytest.raises(GradbenchError, match=message):
        squared_norms(model, images.clone())
    assert state(model) == before


def test_inactive_dropout_is_welcome(images):
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 3)).double().eval()
    assert (squared_norms(model, images).values > 0).all()


def test_network_that_overwrites_its_images(images):
    before = images.clone()
    model = Function(lambda fc, x: fc(x.sub_(0.5))).double()
    plain = Function(lambda fc, x: fc(x - 0.5)).double()
    plain.load_state_dict(model.state_dict())
    found, expected = squared_norms(model, images), squared_norms(plain, images)
    torch.testing.assert_close(found.values, expected.values)
    assert torch.equal(images, before)


def test_gradients_that_were_there_stay(model, images):
    model(images).sum().backward()
    before = {n: p.grad.clone() for n, p in model.named_parameters()}
    squared_norms(model, images)
    assert all(torch.equal(p.grad, before[n]) for n, p in model.named_parameters())


def test_the_same_call_gives_the_same_bytes(model, images):
    assert torch.equal(squared_norms(model, images).values, squared_norms(model, images).values)


@pytest.mark.filterwarnings("ignore")
def test_networks_that_hide_their_functions(images):
    """Checkpointed and traced networks cost more time, not exactness."""
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3)).double()
    expected = squared_norms(plain, images).values
    hidden = {
        "checkpointed": Checkpointed(plain),
        "traced": torch.jit.trace(plain, images),
    }
    for name, network in hidden.items():
        found = squared_norms(network, images, chunk=3).values
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=0, msg=name)


class Checkpointed(nn.Module):
    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.inner, x, use_reentrant=False)


def test_parameters_of_a_scalar_network(images):
    """One output per image without a dimension of classes."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 1), nn.Flatten(0)).double()
    found = squared_norms(model, images, loss=lambda z: 3 * z)
    rows = images.flatten(1).square().sum(1)
    torch.testing.assert_close(found.values, 9 * torch.stack([rows, torch.ones(7)], 1).double())
    assert found.outputs.shape == (7,)


def test_chunk_is_a_function_of_shape_and_device():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert default_chunk((1000, 3, 32, 32), cpu) == 64
    assert default_chunk((1, 3, 32, 32), gpu) == 512
    assert default_chunk((1, 3, 224, 224), cpu) == 9
    assert default_chunk((1, 3, 9000, 9000), cpu) == 1


@pytest.mark.slow
def test_needs_torch_alone():
    heavy = ("torchvision", "hydra", "sklearn", "pandas", "scipy")
    code = (
        f"import sys, gradbench.gradients; print([name for name in {heavy} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
