"""Tiny networks and image sets with known answers, shared by the tests."""

import numpy as np
import torch
from torch import Tensor, nn

from gradbench.backbones.backbone import Backbone
from gradbench.backbones.small_cnn import SmallCNN
from gradbench.data.imageset import ImageSet, source_ids

CLASSES = ("left", "right", "top")


class TinyNet(nn.Module):
    """One convolution, one normalisation, one linear layer: 5 parameter tensors."""

    feature_layers = ("bn",)

    def __init__(self, classes: int = 3, channels: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.bn(self.conv(x))).mean((2, 3)))


def images(count: int = 60, seed: int = 0, channels: int = 1, name: str = "toy") -> ImageSet:
    """Return 8x8 images with a bright half: left, right or top is the class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    pixels = rng.integers(0, 80, (count, channels, 8, 8))
    for label, place in enumerate((np.s_[:, :, :, :4], np.s_[:, :, :, 4:], np.s_[:, :, :4, :])):
        pixels[labels == label] += 120 * _mask(place)
    sources = source_ids(name, "test", count)
    return ImageSet(name, "test", pixels.astype(np.uint8), labels, sources, classes=CLASSES)


def grey(count: int = 20, channels: int = 3, size: int = 16) -> ImageSet:
    """Return mid-grey images, far from both ends of the pixel range."""
    pixels = np.full((count, channels, size, size), 128, np.uint8)
    return ImageSet(
        "grey", "test", pixels, np.zeros(count, np.int64), source_ids("grey", "test", count)
    )


def network(seed: int = 0, width: int = 4, classes: int = 3) -> Backbone:
    """Return an untrained SmallCNN with lively running statistics, in evaluation mode."""
    torch.manual_seed(seed)
    inner = SmallCNN(classes, 1, width)
    for module in inner.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return Backbone(inner, [0.4], [0.3], CLASSES[:classes], (1, 8, 8)).eval()


def _mask(place) -> np.ndarray:
    mask = np.zeros((1, 1, 8, 8), np.int64)
    mask[place] = 1
    return mask
