"""The settings table against ordinary backward passes of one image, in float64."""

import pytest
import torch
from _gradient_settings import SETTINGS, case
from _gradient_truth import ALONE, assert_exact, loop, randomise
from torch import Tensor

from gradbench.backbones.densenet import DenseNet
from gradbench.backbones.resnet import ResNet
from gradbench.backbones.small_cnn import SmallCNN
from gradbench.gradients import squared_norms

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")


@pytest.mark.parametrize("name", SETTINGS)
def test_squared_norms(name):
    model, images, _, _ = case(name)
    options, alone = SETTINGS[name].options, SETTINGS[name].alone
    found = squared_norms(model, images, chunk=5, **options)
    assert found.names == [n for n, _ in model.named_parameters()]
    assert_exact(found.values, case(name).truth)
    torch.testing.assert_close(found.outputs, model(images).detach())
    # other sizes of a batch, one image alone among them
    assert_exact(squared_norms(model, images, chunk=2, **options).values, case(name).truth)
    if alone is not None:
        singly = [n for n in found.names if found.routes[n] == ALONE]
        assert singly == [n for n in found.names if n.startswith(alone)]


SLOW = pytest.param("windows", marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [SLOW if name == "windows" else name for name in SETTINGS])
def test_every_parameter_by_itself(name):
    """The graph of a pass depends on who requires a gradient; the numbers must not."""
    model, images, _, _ = case(name)
    for column, (parameter, _) in enumerate(model.named_parameters()):
        found = squared_norms(
            model, images[:3], parameters=[parameter], chunk=3, **SETTINGS[name].options
        )
        truth = case(name).truth[:3]
        bound = 1e-16 * truth.max(1).values
        wrong = (found.values[:, 0] - truth[:, column]).abs() - 1e-9 * truth[:, column] > bound
        assert not wrong.any(), parameter


BACKBONES = {
    "small_cnn": lambda: SmallCNN(4, 3, 4),
    "resnet18": lambda: ResNet(18, 4, width=4),
    "resnet34": lambda: ResNet(34, 4, width=2),
    "resnet50": lambda: ResNet(50, 4, width=2),
    "resnet101": lambda: ResNet(101, 4, width=1),
    "densenet": lambda: DenseNet(16, 4, growth=4),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_own_backbones(name):
    model = randomise(BACKBONES[name]())
    images = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    truth = loop(model, images)
    found = squared_norms(model, images, chunk=2)
    assert_exact(found.values, truth)
    assert ALONE not in found.routes.values()


def test_penalty_in_the_loss_is_seen():
    model = randomise(SmallCNN(4, 1, 3))
    images = torch.rand(3, 1, 8, 8, dtype=torch.float64)

    def loss(z: Tensor) -> Tensor:
        return z.square().mean(1) + model.conv2.weight.square().sum()

    found = squared_norms(model, images, loss=loss)
    assert found.routes["conv2.weight"] == ALONE
    assert_exact(found.values, loop(model, images, lambda image, z: loss(z)))
