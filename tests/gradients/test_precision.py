"""Number formats and layouts: what they change, how much, and that they are put back."""

from itertools import pairwise

import pytest
import torch
from _gradient_settings import case
from _gradient_truth import assert_exact, randomise
from torch import Tensor, nn

from gradbench.backbones.resnet import ResNet
from gradbench.errors import GradbenchError
from gradbench.gradients import squared_norms
from gradbench.gradients.precision import DTYPES


@pytest.fixture(scope="module")
def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(6, 3, 16, 16, generator=generator)


@pytest.fixture
def model() -> nn.Module:
    return randomise(ResNet(18, 10, width=8)).float()


@pytest.fixture
def exact(model, images) -> Tensor:
    found = squared_norms(randomise_copy(model), images.double())
    assert found.values.dtype == torch.float64
    return found.values


def randomise_copy(model: nn.Module) -> nn.Module:
    copy = ResNet(18, 10, width=8)
    copy.load_state_dict(model.state_dict())
    return copy.double().eval()


def test_float64_of_a_float32_network_is_that_of_its_copy(model, images, exact):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = squared_norms(model, images, precision="float64")
    assert_exact(found.values, exact)
    assert found.outputs.dtype == torch.float64
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name])
    assert all(p.requires_grad for p in model.parameters())


def test_float32_of_a_float64_network(model, images, exact):
    double = model.double()
    found = squared_norms(double, images.double(), precision="float32")
    assert found.values.dtype == torch.float32
    torch.testing.assert_close(found.values.double(), exact, rtol=1e-4, atol=0)
    assert all(p.dtype == torch.float64 for p in double.parameters())


def relative_errors(model: nn.Module, images: Tensor, exact: Tensor, **options) -> Tensor:
    found = squared_norms(model, images, **options)
    assert found.values.dtype == torch.float32
    assert found.outputs.isfinite().all()
    assert found.values.isfinite().all()
    return (found.values.double() - exact).abs() / exact


@pytest.mark.parametrize(
    ("precision", "median", "most"),
    [(None, 1e-5, 1e-3), ("float32", 1e-5, 1e-3), ("bfloat16", 0.05, 0.5), ("float16", 0.01, 0.3)],
)
def test_errors_of_each_precision(model, images, exact, precision, median, most):
    errors = relative_errors(model, images, exact, precision=precision)
    assert errors.median() < median
    assert errors.quantile(0.95) < most
    assert all(p.dtype == torch.float32 for p in model.parameters())
    if precision in ("bfloat16", "float16"):  # the format was used
        assert errors.median() > 1e-5


def test_small_gradients_survive_float16():
    """Without a scale of the loss, deltas of 1e-6 would lose their digits in float16."""
    model = randomise(nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Tanh(), nn.Linear(8, 4)))
    images = torch.rand(5, 3, 8, 8, dtype=torch.float64)

    def loss(z: Tensor) -> Tensor:
        return 1e-6 * z.float().square().sum(1)

    exact = squared_norms(model, images, loss=lambda z: 1e-6 * z.square().sum(1)).values * 1e12
    found = squared_norms(model.float(), images.float(), loss=loss, precision="float16")
    torch.testing.assert_close(found.values.double() * 1e12, exact, rtol=0.01, atol=0)


def test_callers_autocast_is_respected_unless_a_precision_is_named(model, images, exact):
    seen = []
    with (
        model.conv1.register_forward_hook(lambda m, i, o: seen.append(o.dtype)),
        torch.autocast("cpu", torch.bfloat16),
    ):
        half = squared_norms(model, images)
        single = squared_norms(model, images, precision="float32")
    assert seen == [torch.bfloat16, torch.float32]
    assert half.values.dtype == single.values.dtype == torch.float32
    errors = [(f.values.double() - exact).abs().div(exact).median() for f in (half, single)]
    assert 1e-4 < errors[0] < 0.05
    assert errors[1] < 1e-5


@pytest.mark.parametrize("precision", sorted(set(DTYPES) - {"tf32"}))
def test_tensor_float_settings_come_back(model, images, precision):
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before, seen = (matmul.fp32_precision, convolution.fp32_precision), []
    try:
        matmul.fp32_precision, convolution.fp32_precision = "tf32", "ieee"

        def look(*_):
            seen.append((matmul.fp32_precision, convolution.fp32_precision))
            if len(seen) > 1:
                raise ValueError("half-way")

        model.conv1.register_forward_hook(look)
        squared_norms(model, images, precision=precision)
        assert (matmul.fp32_precision, convolution.fp32_precision) == ("tf32", "ieee")
        with pytest.raises(ValueError, match="half-way"):
            squared_norms(model, images, precision=precision)
        assert (matmul.fp32_precision, convolution.fp32_precision) == ("tf32", "ieee")
        inside = "ieee" if precision in ("float32", "float64") else "tf32"
        assert seen == [(inside, inside)] * 2
        assert not torch.is_autocast_enabled("cpu")
    finally:
        matmul.fp32_precision, convolution.fp32_precision = before


def test_tensor_float_is_off_by_default(model, images):
    matmul, before, seen = torch.backends.cuda.matmul, torch.backends.cuda.matmul.fp32_precision, []
    try:
        matmul.fp32_precision = "tf32"
        model.conv1.register_forward_hook(lambda *_: seen.append(matmul.fp32_precision))
        squared_norms(model, images)
        assert seen == ["ieee"]
    finally:
        matmul.fp32_precision = before


@pytest.mark.parametrize("precision", ["double", "fp16", "bf16", 32])
def test_refused_precisions(model, images, precision):
    with pytest.raises(GradbenchError, match=r"no precision named.*valid choices are bfloat16"):
        squared_norms(model, images, precision=precision)


@pytest.mark.parametrize("name", ["conv-groups", "vision", "transposed2d-uneven", "group-norm"])
def test_layouts_agree(name):
    model, images, _, _ = case(name)
    seen = []
    with model.register_forward_pre_hook(lambda m, i: seen.append(layout(i[0]))):
        found = [squared_norms(model, images, channels_last=x).values for x in (None, True, False)]
    assert seen == [False, True, False]  # float64 is contiguous unless told otherwise
    for values in found:
        assert_exact(values, case(name).truth)
    for a, b in pairwise(found):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=0)


def layout(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def test_layouts_of_float32_agree(model, images, exact):
    seen = []
    model.conv1.register_forward_hook(lambda m, i, o: seen.append(layout(i[0])))
    for channels_last in (None, True, False):
        errors = relative_errors(model, images, exact, channels_last=channels_last)
        assert errors.median() < 1e-5
    assert seen == [True, True, False]


class Viewing(nn.Module):
    """`view` wants a contiguous tensor, which channels last is not."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(144, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.fc(x.view(len(x), -1))


@pytest.mark.parametrize("channels_last", [None, True])
def test_networks_that_cannot_take_channels_last_work(channels_last):
    model, images = Viewing().eval(), torch.rand(5, 3, 8, 8)
    seen = []
    model.conv.register_forward_hook(lambda m, i, o: seen.append(len(i[0])))
    found = squared_norms(model, images, channels_last=channels_last, chunk=2)
    exact = squared_norms(model, images, precision="float64").values
    torch.testing.assert_close(found.values.double(), exact, rtol=1e-4, atol=0)
    assert seen[:3] == [2, 2, 1]  # no image was shown to the caller's hook twice


def test_a_fault_of_the_network_is_not_taken_for_one_of_the_layout():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(7, 2))
    with pytest.raises(GradbenchError, match="shapes cannot be multiplied"):
        squared_norms(model, torch.rand(2, 3, 8, 8))


def test_tensor_float_is_refused_where_there_is_none(model, images):
    with pytest.raises(GradbenchError, match="NVIDIA"):
        squared_norms(model.cpu(), images.cpu(), precision="tf32")
