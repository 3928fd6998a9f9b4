"""A network small enough to train in seconds on the embedded digits."""

import torch
from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Three 3x3 convolutions with batch normalisation, mean pooling, one linear layer.

    The first layer has `width` channels, the next two have twice and four times as many.
    """

    feature_layers = ("stage1", "stage2", "stage3")

    def __init__(self, classes: int, channels: int = 1, width: int = 16):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.stage1 = nn.Identity()
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(2 * width)
        self.stage2 = nn.Identity()
        self.conv3 = nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.stage3 = nn.Identity()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, channels, H, W) -> logits (B, classes)."""
        x = self.stage1(torch.relu(self.bn1(self.conv1(x))))
        x = self.stage2(torch.relu(self.bn2(self.conv2(x))))
        x = self.stage3(torch.relu(self.bn3(self.conv3(x))))
        return self.fc(self.avgpool(x).flatten(1))
