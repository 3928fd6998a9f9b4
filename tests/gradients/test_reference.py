"""The slow engines against each other, against a hand-worked case, and what they leave behind."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradbench.errors import GradbenchError
from gradbench.gradients import KHot, as_loss
from gradbench.gradients.reference import loop_norms, vmap_norms

ENGINES = (loop_norms, vmap_norms)
LOSSES = [
    ("bce", "ones"),
    ("mse", KHot((0, 2))),
    ("ce_uniform", "ones"),
    ("ce_sum_one_hot", "ones"),
]


class Mixed(nn.Module):
    """A buffer, a tied weight, an in-place ReLU, and a parameter that is not used."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)
        self.unused = nn.Parameter(torch.randn(2))
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight
        self.fc = nn.Linear(3, 4)
        nn.init.uniform_(self.bn.running_var, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(x.sub_(0.5))), inplace=True).mean((2, 3))
        return self.fc(self.b(torch.tanh(self.a(x))))


@pytest.fixture
def model() -> nn.Module:
    return Mixed().double().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, 1, 6, 6, dtype=torch.float64)


@pytest.mark.parametrize("engine", ENGINES)
def test_hand_worked(engine):
    """z = w . x + b with J = z^2: dJ/dw = 2 z x, dJ/db = 2 z."""
    model = nn.Linear(2, 1).eval()
    model.load_state_dict({"weight": torch.tensor([[1.0, -2.0]]), "bias": torch.tensor([3.0])})
    images = torch.tensor([[1.0, 1.0], [2.0, 0.0], [-1.0, 1.0]])  # z = 2, 5, 0
    found = engine(model, images, lambda z: z[:, 0] ** 2)
    assert found.dtype == torch.float32
    assert found.tolist() == [[32.0, 16.0], [400.0, 100.0], [0.0, 0.0]]


@pytest.mark.parametrize(("loss", "label"), LOSSES)
def test_engines_agree_with_backward(model, images, loss, label):
    per_image = as_loss(loss, label)
    truth = []
    for image in images.split(1):
        model.zero_grad()
        per_image(model(image.clone())).sum().backward()
        truth.append([0 if p.grad is None else p.grad.square().sum() for p in model.parameters()])
    model.zero_grad()
    truth = torch.tensor(truth, dtype=torch.float64)
    column = [name for name, _ in model.named_parameters()].index("unused")
    assert (truth[:, column] == 0).all()
    assert (truth[:, column + 1 :] > 0).all()
    torch.testing.assert_close(loop_norms(model, images, per_image), truth, rtol=1e-12, atol=0)
    for micro_batch in (1, 2, 8):
        found = vmap_norms(model, images, per_image, micro_batch)
        torch.testing.assert_close(found, truth, rtol=1e-9, atol=1e-30)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_model_comes_back_as_it_was(engine, model, images):
    loss = as_loss("bce")
    expected, kept = engine(model, images, loss), images.clone()
    model.fc.weight.requires_grad_(False)
    model.conv.requires_grad_(False)
    frozen = [p.requires_grad for p in model.parameters()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        torch.testing.assert_close(engine(model, images, loss), expected, rtol=1e-12, atol=0)
    with torch.inference_mode():
        found = engine(model, images + 0, loss)
    torch.testing.assert_close(found.clone(), expected, rtol=1e-12, atol=0)

    def fail(outputs: Tensor) -> Tensor:
        raise ValueError("halfway")

    with pytest.raises(ValueError, match="halfway"):
        engine(model, images, fail)
    assert not expected.requires_grad
    assert torch.equal(images, kept)
    assert [p.requires_grad for p in model.parameters()] == frozen
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_vmap_refuses_random_numbers(images):
    noisy = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    noisy.register_forward_pre_hook(lambda module, args: (args[0] + torch.rand(1),))
    with pytest.raises(RuntimeError, match="random"):
        vmap_norms(noisy.double().eval(), images, as_loss("bce"))


@pytest.mark.parametrize("engine", ENGINES)
def test_refusals(engine, model, images):
    with pytest.raises(GradbenchError, match="no images"):
        engine(model, images[:0], as_loss("bce"))
    with pytest.raises(GradbenchError, match="no parameters"):
        engine(nn.Flatten(), images, as_loss("bce"))
    with pytest.raises(GradbenchError, match="training mode"):
        engine(model.train(), images, as_loss("bce"))
    with pytest.raises(GradbenchError, match="micro_batch 0"):
        vmap_norms(model.eval(), images, as_loss("bce"), micro_batch=0)
