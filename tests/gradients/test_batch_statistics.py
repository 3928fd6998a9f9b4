"""Statistics of weights are no statistics of the batch."""

import pytest
import torch
from _gradient_truth import assert_exact, loop, randomise
from torch import Tensor, nn
from torch.nn import functional as F

from gradbench.errors import GradbenchError
from gradbench.gradients import squared_norms


class Standardised(nn.Conv2d):
    """As in timm's Big Transfer, with a gain as in its normaliser-free networks."""

    def __init__(self, *sizes: int, gain: bool = False, bias: bool = True):
        super().__init__(*sizes, bias=bias)
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1)) if gain else None

    def standardised(self) -> Tensor:
        rows = self.weight.reshape(1, self.out_channels, -1)
        gain = None if self.gain is None else (self.gain * 0.3).view(-1)
        found = F.batch_norm(rows, None, None, weight=gain, training=True, momentum=0.0, eps=1e-6)
        return found.reshape_as(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.standardised(), self.bias)


class InPlace(Standardised):
    """The rows are gathered in place in a tensor of zeros first."""

    def standardised(self) -> Tensor:
        rows = torch.zeros(1, self.out_channels, self.weight[0].numel(), dtype=self.weight.dtype)
        rows[0] += self.weight.flatten(1)
        return torch.batch_norm(rows, None, None, None, None, True, 0.0, 1e-6, False).reshape_as(
            self.weight
        )


def network(layer: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return randomise(
        nn.Sequential(
            layer,
            nn.GroupNorm(2, 8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
        )
    )


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 6, 6, dtype=torch.float64)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    "layer",
    [
        lambda: Standardised(3, 8, 3),
        lambda: Standardised(3, 8, 3, gain=True, bias=False),
        lambda: InPlace(3, 8, 3),
    ],
)
def test_standardised_weights_are_exact(layer, count):
    net, x = network(layer()), images(count)
    found = squared_norms(net, x)
    assert_exact(found.values, loop(net, x))
    assert found.values.min(0).values.sum() > 0


class OfImages(nn.Module):
    """A normalisation in training mode of what a function makes of the images."""

    def __init__(self, function):
        super().__init__()
        self.fc, self.out, self.function = nn.Linear(108, 6), nn.Linear(6, 5), function

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x.flatten(1))
        y = self.function(self, h)
        return self.out(h + F.batch_norm(y, None, None, training=True))


def written(net: OfImages, h: Tensor) -> Tensor:
    rows = torch.zeros(3, 6, dtype=h.dtype)
    rows.view(-1)[:6].copy_(h.detach()[0])
    return rows


def without_autograd(net: OfImages, h: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.stack([h[0], h[0] * 2]) * net.out.weight.sum()


MADE = {
    "the images": lambda net, h: torch.cat([h, h.flip(0) * 2]),
    "detached": lambda net, h: torch.cat([h.detach(), net.out.weight]),
    "written in place": written,
    "without autograd": without_autograd,
}


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("count", [1, 3])
def test_statistics_of_images_stay_refused(name, count):
    net = OfImages(MADE[name]).double().eval()
    with pytest.raises(GradbenchError, match="statistics of the batch"):
        squared_norms(net, images(count))
