"""A small network that has learned digits, so that what attacks do to it means something."""

from copy import deepcopy
from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from gradbench.backbones.backbone import Backbone
from gradbench.backbones.small_cnn import SmallCNN
from gradbench.data.imageset import ImageSet, source_ids

NAMES = tuple("0123456789")


def digits(count: int, start: int = 0) -> ImageSet:
    """Return 8x8 digits that keep off black and white."""
    raw = load_digits()
    pixels = (40 + raw.images[start : start + count] * 10).astype(np.uint8)[:, None]
    labels = raw.target[start : start + count].astype(np.int64)
    return ImageSet("digits", "test", pixels, labels, source_ids("digits", "test", count))


@cache
def trained() -> Backbone:
    """Return a network of 91 % on digits before the 300th, trained in two seconds."""
    torch.manual_seed(0)
    images = digits(1200, 300)
    net = Backbone(SmallCNN(10, 1, 6), [0.4], [0.25], NAMES, (1, 8, 8))
    pixels, labels = torch.from_numpy(images.images).float() / 255, torch.from_numpy(images.labels)
    steps, batch = 150, 64
    optimiser = torch.optim.SGD(net.parameters(), 0.1, 0.9)
    for step in range(steps):
        rows = torch.randint(len(images), (batch,))
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - step / steps)
        optimiser.zero_grad()
        functional.cross_entropy(net(pixels[rows]), labels[rows]).backward()
        optimiser.step()
    optimiser.zero_grad()
    return net.eval()


class Head(nn.Module):
    """A network whose logits are changed afterwards."""

    def __init__(self, network: nn.Module, scale: float = 1.0, shift: float = 0.0):
        super().__init__()
        self.network, self.scale, self.shift = network, scale, shift

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.network(x) + self.shift


def changed(scale: float = 1.0, shift: float = 0.0) -> Backbone:
    """Return a copy of the trained network with scaled and shifted logits."""
    net = trained()
    head = Head(deepcopy(net.network), scale, shift)
    return Backbone(head, [0.4], [0.25], NAMES, net.shape).eval()
