"""Densely connected networks for 32-pixel images: DenseNet-BC (Huang et al. 2017).

https://arxiv.org/abs/1608.06993. Names in the state dict are those of the PyTorch network that the
Mahalanobis detector was published with (conv1, block1.layer.0.bn1, trans1.conv1, fc).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

BLOCKS = 3
BOTTLENECK = 4
"""Channels between the two convolutions of a layer, in multiples of the growth."""


def _same(x: Tensor) -> Tensor:
    """Stand in for dropout without adding a module, which would rename every network."""
    return x


class DenseLayer(nn.Module):
    """1x1 and 3x3 convolutions, each after normalisation and ReLU, put beside their input."""

    def __init__(self, inputs: int, growth: int, dropout: float = 0.0):
        super().__init__()
        inner = BOTTLENECK * growth
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, growth, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout) if dropout else _same

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, inputs + growth, H, W)."""
        y = self.dropout(self.conv1(torch.relu(self.bn1(x))))
        y = self.dropout(self.conv2(torch.relu(self.bn2(y))))
        return torch.cat((x, y), 1)


class DenseBlock(nn.Module):
    """Layers of which each reads the outputs of all before it."""

    def __init__(self, inputs: int, growth: int, count: int, dropout: float = 0.0):
        super().__init__()
        self.layer = nn.Sequential(
            *(DenseLayer(inputs + i * growth, growth, dropout) for i in range(count))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, inputs + count * growth, H, W)."""
        return self.layer(x)


class Transition(nn.Module):
    """Normalisation, ReLU, 1x1 convolution to fewer channels, 2x2 mean pooling."""

    def __init__(self, inputs: int, outputs: int, dropout: float = 0.0):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.dropout = nn.Dropout(dropout) if dropout else _same

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H // 2, W // 2)."""
        return functional.avg_pool2d(self.dropout(self.conv1(torch.relu(self.bn1(x)))), 2)


class DenseNet(nn.Module):
    """CIFAR-style DenseNet-BC: 3x3 stem, three dense blocks, mean pooling, one layer.

    Images are at least 4x4 pixels.

    Args:
        depth: layers with weights, 4 + 6n for blocks of n bottleneck layers; 100 in the papers.
        classes: number of classes.
        channels: of the images.
        growth: channels that a layer adds; the stem has twice as many.
        compression: share of its channels, rounded down, that a block hands to the next, in (0, 1].
        dropout: share of values that are dropped after every convolution but the first, from 0 to
            below 1; 0.2 in the paper for training without augmentation.
    """

    # the four that the Mahalanobis detector was published with on this network
    feature_layers = ("conv1", "trans1", "trans2", "relu")

    def __init__(
        self,
        depth: int,
        classes: int,
        channels: int = 3,
        growth: int = 12,
        compression: float = 0.5,
        dropout: float = 0.0,
    ):
        super().__init__()
        count, rest = divmod(depth - 4, 2 * BLOCKS)
        if rest or count < 1:
            raise ValueError(f"depth {depth}: choose 4 + 6n, for example 10, 40 or 100")
        if growth < 1:
            raise ValueError(f"growth {growth}: at least 1")
        if not 0 < compression <= 1:
            raise ValueError(f"compression {compression}: above 0, at most 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout {dropout}: from 0, below 1")
        inputs = 2 * growth
        self.conv1 = nn.Conv2d(channels, inputs, 3, padding=1, bias=False)
        for block in range(1, BLOCKS + 1):
            setattr(self, f"block{block}", DenseBlock(inputs, growth, count, dropout))
            inputs += count * growth
            if block < BLOCKS:
                outputs = max(int(compression * inputs), 1)
                setattr(self, f"trans{block}", Transition(inputs, outputs, dropout))
                inputs = outputs
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, channels, H, W) -> logits (B, classes)."""
        x = self.trans1(self.block1(self.conv1(x)))
        x = self.block3(self.trans2(self.block2(x)))
        x = self.relu(self.bn1(x))
        return self.fc(self.avgpool(x).flatten(1))
