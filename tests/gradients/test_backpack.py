"""BackPACK's BatchL2Grad as an independent witness, in float64."""

import pytest
import torch
import torchvision
from _gradient_truth import randomise
from torch import Tensor, nn

from gradbench.gradients import squared_norms

backpack = pytest.importorskip("backpack")
pytestmark = pytest.mark.filterwarnings("ignore")

CLASSES = 4


def witness(model: nn.Module, images: Tensor) -> Tensor:
    """Squared norms by BatchL2Grad for a loss that BackPACK knows, (B, d)."""
    loss = nn.CrossEntropyLoss(reduction="sum")
    converted = backpack.extend(model, use_converter=not isinstance(model, nn.Sequential))
    value = backpack.extend(loss)(converted(images), target(len(images)))
    with backpack.backpack(backpack.extensions.BatchL2Grad()):
        value.backward()
    return torch.stack([p.batch_l2 for p in converted.parameters()], 1)


def target(images: int) -> Tensor:
    return torch.full((images,), 2)


def cross_entropy(outputs: Tensor) -> Tensor:
    """The same loss for the engine."""
    return nn.functional.cross_entropy(outputs, target(len(outputs)), reduction="none")


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 8, (3, 2), dilation=(1, 2)),
        nn.Sigmoid(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(72, 10),
        nn.Tanh(),
        nn.Linear(10, CLASSES),
    )


def transposed() -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1),
        nn.Tanh(),
        nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(36, CLASSES),
    )


NETWORKS = {
    "plain": (plain, 16),
    "transposed": (transposed, 8),
    "resnet": (lambda: torchvision.models.resnet18(num_classes=CLASSES), 32),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_batch_l2_grad(name):
    make, size = NETWORKS[name]
    model = randomise(make())
    images = torch.rand(4, 3, size, size, dtype=torch.float64)
    found = squared_norms(model, images, loss=cross_entropy, chunk=3)
    torch.testing.assert_close(witness(model, images), found.values, rtol=1e-10, atol=0)
