"""Every rule and every network against one-image-at-a-time autograd, in float64."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from gradbench.backbones.resnet import ResNet
from gradbench.backbones.small_cnn import SmallCNN
from gradbench.gradients import KHot, RandomKHot, as_loss, squared_norms

CLASSES = 4
ALONE = "one image at a time"
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")


def loop(model: nn.Module, images: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """The truth: one ordinary backward pass per image, (B, d)."""
    rows = []
    for image in images.split(1):
        model.zero_grad(set_to_none=True)
        loss(model(image)).sum().backward()
        rows.append([0.0 if p.grad is None else p.grad.square().sum() for p in model.parameters()])
    model.zero_grad(set_to_none=True)
    return torch.tensor(rows, dtype=torch.float64)


def assert_exact(values: Tensor, truth: Tensor) -> None:
    bound = 1e-9 * truth + 1e-16 * truth.max(1, keepdim=True).values
    assert values.shape == truth.shape
    assert ((values - truth).abs() <= bound).all(), ((values - truth).abs() / bound).max()


def randomise(model: nn.Module) -> nn.Module:
    """float64, evaluation mode, and statistics and scales that are not the initial 0 and 1."""
    model.double().eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
        norms = nn.modules.batchnorm._BatchNorm | nn.GroupNorm | nn.LayerNorm
        if isinstance(module, norms) and module.weight is not None:
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
    return model


def head(*layers: nn.Module, channels: int) -> nn.Sequential:
    """Layers, a nonlinearity, mean pooling and a linear layer."""
    return nn.Sequential(
        *layers, nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)
    )


def conv(*args, **kwargs) -> nn.Sequential:
    layer = nn.Conv2d(*args, **kwargs)
    return head(layer, channels=layer.out_channels)


class Tokens(nn.Module):
    """Linear layers on several rows per image, before and after one on flattened rows."""

    def __init__(self, rows: int, width: int):
        super().__init__()
        self.embed, self.mix = nn.Linear(64 // rows, width), nn.Linear(width, width, bias=False)
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, CLASSES)
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, 0].reshape(len(x), self.rows, -1)
        return self.out(self.norm(self.mix(F.gelu(self.embed(x)))).mean(1))


class TokensFirst(Tokens):
    """The same with the tokens in the first dimension and the images in the second."""

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, 0].reshape(len(x), self.rows, -1).transpose(0, 1)
        return self.out(self.norm(self.mix(F.gelu(self.embed(x)))).mean(0))


class Twice(nn.Module):
    """A convolution used twice, a tied weight and a module used as a function."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
        self.b.weight = self.a.weight
        self.out = nn.Linear(3, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(torch.tanh(self.conv(x))).mean((2, 3))
        return F.linear(self.b(torch.tanh(self.a(x))), self.out.weight, self.out.bias)


class Bare(nn.Module):
    """Bare parameters, one that is not used, one that also acts outside its layer."""

    def __init__(self):
        super().__init__()
        self.shift, self.scale = nn.Parameter(torch.randn(3, 1, 1)), nn.Parameter(torch.randn(3))
        self.unused, self.conv = nn.Parameter(torch.randn(2)), nn.Conv2d(3, 5, 3)
        self.out = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x * self.scale.view(-1, 1, 1) + self.shift).sigmoid().mean((2, 3))
        return self.out(x) + self.conv.weight.square().mean()


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, 0]
        return self.out(self.attention(x, x, x)[0].mean(1))


class InPlace(nn.Module):
    """In-place changes of what layers returned, a view of a linear layer's output among them."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.rows, self.out = nn.Linear(8, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x)).relu_()
        x = self.rows(x.flatten(2).transpose(1, 2).contiguous()).relu_()
        return self.out(x.mean(1)).mul_(2)


class Setting(NamedTuple):
    make: Callable[[], nn.Module]
    # Beginnings of the names that need the exact fallback; None where that is PyTorch's affair.
    alone: tuple[str, ...] | None = ()
    shape: tuple[int, ...] = (3, 8, 8)


SETTINGS = {
    "conv": Setting(partial(conv, 3, 5, 3)),
    "conv-padding-bias": Setting(partial(conv, 3, 5, 3, padding=1)),
    "conv-stride": Setting(partial(conv, 3, 5, 3, stride=2, padding=1)),
    "conv-stride-3-kernel-2": Setting(partial(conv, 3, 5, 2, stride=3)),
    "conv-uneven": Setting(
        partial(conv, 3, 5, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(2, 1))
    ),
    "conv-dilation-stride": Setting(
        partial(conv, 3, 5, 3, stride=2, padding=3, dilation=3), shape=(3, 11, 9)
    ),
    "conv-same": Setting(partial(conv, 3, 5, 4, padding="same", bias=False)),
    "conv-valid": Setting(partial(conv, 3, 5, 3, padding="valid")),
    "conv-reflect": Setting(partial(conv, 3, 5, 3, padding=1, padding_mode="reflect")),
    "conv-groups": Setting(
        lambda: head(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 8, 3, groups=2), channels=8)
    ),
    "conv-depthwise": Setting(partial(conv, 3, 6, 3, stride=2, padding=1, groups=3)),
    "conv-1x1": Setting(partial(conv, 3, 5, 1)),
    "conv-1x1-stride": Setting(partial(conv, 3, 5, 1, stride=2)),
    "conv-1x1-padding": Setting(partial(conv, 3, 5, 1, stride=2, padding=1)),
    "conv-many-channels": Setting(
        lambda: head(nn.Conv2d(3, 40, 3, 2, 1), nn.Conv2d(40, 40, 3, 2, 1), channels=40)
    ),
    "linear": Setting(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 9), nn.Tanh(), nn.Linear(9, 4))
    ),
    "linear-few-rows": Setting(partial(Tokens, 2, 16)),
    "linear-many-rows": Setting(partial(Tokens, 32, 3)),
    "linear-tokens-first": Setting(partial(TokensFirst, 8, 6), ("embed", "mix", "norm")),
    "batch-norm": Setting(lambda: head(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), channels=5)),
    "batch-norm-1d": Setting(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.BatchNorm1d(6), nn.Linear(6, 4))
    ),
    "batch-norm-no-affine": Setting(lambda: head(nn.BatchNorm2d(3, affine=False), channels=3)),
    "group-norm": Setting(lambda: head(nn.Conv2d(3, 6, 3), nn.GroupNorm(3, 6), channels=6)),
    "layer-norm": Setting(lambda: head(nn.LayerNorm((3, 8, 8)), channels=3)),
    "conv3d": Setting(
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 2, 3), nn.Flatten(), nn.Linear(72, 4)
        ),
        ("1.",),
    ),
    "transposed": Setting(lambda: head(nn.ConvTranspose2d(3, 5, 3), channels=5), ("0.",)),
    "weight-norm": Setting(
        lambda: head(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 5, 3)), channels=5),
        ("0.parametrizations",),
    ),
    "twice": Setting(Twice, ("conv", "a.weight")),
    "bare": Setting(Bare, ("shift", "scale", "conv.weight")),
    "attention": Setting(Attention, ("attention",)),
    "in-place": Setting(InPlace, None),
    "small-cnn": Setting(partial(SmallCNN, CLASSES, 3, 4)),
    "resnet18": Setting(partial(ResNet, 18, CLASSES, width=8), shape=(3, 16, 16)),
    "resnet50": Setting(partial(ResNet, 50, CLASSES, width=2)),
    "torchvision-resnet18": Setting(
        partial(torchvision.models.resnet18, num_classes=CLASSES), shape=(3, 64, 64)
    ),
    "torchvision-mobilenet": Setting(
        partial(torchvision.models.mobilenet_v3_small, num_classes=CLASSES), shape=(3, 32, 32)
    ),
    "torchvision-densenet": Setting(
        partial(torchvision.models.DenseNet, 4, (2, 2), 8, num_classes=CLASSES), shape=(3, 32, 32)
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_network_against_loop(name: str):
    torch.manual_seed(0)
    make, alone, shape = SETTINGS[name]
    model = randomise(make())
    images = torch.rand(8, *shape, dtype=torch.float64)
    found = squared_norms(model, images, chunk=8)
    assert found.names == [n for n, _ in model.named_parameters()]
    assert_exact(found.values, loop(model, images, as_loss()))
    torch.testing.assert_close(found.outputs, model(images).detach())
    if alone is not None:
        singly = [n for n in found.names if found.routes[n] == ALONE]
        assert singly == [n for n in found.names if any(map(n.startswith, alone))]


LOSSES = {
    "bce": {},
    "bce-sum": {"reduction": "sum"},
    "bce-zeros": {"label": "zeros"},
    "bce-k-hot": {"label": KHot((0, 3))},
    "bce-random": {"label": RandomKHot(3, seed=5)},
    "ce-uniform": {"loss": "ce_uniform"},
    "ce-sum-one-hot": {"loss": "ce_sum_one_hot"},
    "mse": {"loss": "mse"},
    "function": {"loss": lambda z: z.logsumexp(1)},
}


@pytest.mark.parametrize("name", LOSSES)
def test_loss_against_loop(name: str):
    torch.manual_seed(1)
    model = randomise(SmallCNN(CLASSES, 1, 3))
    images = torch.rand(5, 1, 8, 8, dtype=torch.float64)
    found = squared_norms(model, images, **LOSSES[name])
    assert_exact(found.values, loop(model, images, as_loss(**LOSSES[name])))


def test_penalty_in_the_loss_is_seen():
    torch.manual_seed(2)
    model = randomise(SmallCNN(CLASSES, 1, 3))
    images = torch.rand(3, 1, 8, 8, dtype=torch.float64)

    def loss(z: Tensor) -> Tensor:
        return z.square().mean(1) + model.conv2.weight.square().sum()

    found = squared_norms(model, images, loss=loss)
    assert found.routes["conv2.weight"] == ALONE
    assert_exact(found.values, loop(model, images, loss))


def test_last_layer_identities():
    torch.manual_seed(3)
    model = randomise(SmallCNN(10, 3, 4))
    images = torch.rand(6, 3, 8, 8, dtype=torch.float64)
    seen = []
    handle = model.avgpool.register_forward_hook(lambda m, i, o: seen.append(o.detach().flatten(1)))
    found = squared_norms(model, images)
    handle.remove()
    delta = (found.outputs.sigmoid() - 1) / 10
    weight, bias = found.values[:, -2], found.values[:, -1]
    torch.testing.assert_close(bias, delta.square().sum(1))
    torch.testing.assert_close(weight, delta.square().sum(1) * seen[0].square().sum(1))


@pytest.mark.parametrize(("depth", "tensors"), [(18, 62), (34, 110), (50, 161), (101, 314)])
def test_number_of_tensors(depth: int, tensors: int):
    found = squared_norms(ResNet(depth, 10, width=1).eval(), torch.rand(1, 3, 8, 8))
    assert found.values.shape == (1, tensors)
    assert ALONE not in found.routes.values()
