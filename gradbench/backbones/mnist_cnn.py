"""The small network for MNIST of Outlier Exposure (Hendrycks, Mazeika and Dietterich 2019).

https://arxiv.org/abs/1812.04606. Names in the state dict are those of the network that
https://github.com/hendrycks/outlier-exposure publishes (conv1, conv2, fc1, fc2).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class QuickGELU(nn.Module):
    """The approximation x sigmoid(1.702 x) of a Gaussian error linear unit."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same."""
        return x * torch.sigmoid(1.702 * x)


class MnistCNN(nn.Module):
    """Two convolutions of 5x5 with 10 and 20 maps, halved by maxima, then layers of 50 and N.

    For images of 28x28, which leave 20 maps of 4x4; with 10 classes it has 21,840 weights. Whole
    maps of the second convolution are dropped in training, with probability `dropout`.
    """

    feature_layers = ("stage1", "stage2")

    def __init__(self, classes: int, channels: int = 1, dropout: float = 0.5):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 10, 5)
        self.stage1 = QuickGELU()
        self.conv2 = nn.Conv2d(10, 20, 5)
        self.dropout = nn.Dropout2d(dropout)
        self.stage2 = QuickGELU()
        self.fc1 = nn.Linear(20 * 4 * 4, 50)
        self.stage3 = QuickGELU()
        self.fc2 = nn.Linear(50, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, channels, 28, 28) -> logits (B, classes)."""
        x = self.stage1(functional.max_pool2d(self.conv1(x), 2))
        x = self.stage2(functional.max_pool2d(self.dropout(self.conv2(x)), 2))
        return self.fc2(self.stage3(self.fc1(x.flatten(1))))
