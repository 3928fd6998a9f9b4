"""Residual networks that were designed for CIFAR (He et al. 2016, section 4.2).

https://arxiv.org/abs/1512.03385. Names in the state dict are those of the networks that
https://github.com/akamaster/pytorch_resnet_cifar10 publishes (conv1, layer1.0.bn1, linear).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gradbench.backbones.resnet import BasicBlock, conv3x3

STAGES = 3


class ZeroPadding(nn.Module):
    """Shortcut without weights (option A): every second pixel, channels of zeros on both sides."""

    def __init__(self, added: int, stride: int):
        super().__init__()
        self.added, self.stride = added, stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C + added, H/stride, W/stride)."""
        before = self.added // 2
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, before, self.added - before))


def _shortcut(inputs: int, outputs: int, stride: int) -> ZeroPadding | None:
    return None if inputs == outputs else ZeroPadding(outputs - inputs, stride)


class CifarResNet(nn.Module):
    """Thin ResNet for 32-pixel images: three stages of width w, 2w, 4w, mean pooling, `linear`.

    The depth counts layers with weights, 6n + 2 for stages of n blocks: 20, 32, 44, 56 or 110 in
    the paper, where the width of the first stage is 16. With 10 classes ResNet-20 has 269,722
    weights.
    """

    feature_layers = ("stem", "layer1", "layer2", "layer3")

    def __init__(self, depth: int, classes: int, channels: int = 3, width: int = 16):
        super().__init__()
        count, rest = divmod(depth - 2, 2 * STAGES)
        if rest or count < 1:
            raise ValueError(f"depth {depth}: choose 6n + 2, for example 20, 32, 44 or 56")
        if width < 1:
            raise ValueError(f"width {width}: at least 1")
        self.conv1 = conv3x3(channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.stem = nn.Identity()  # a place to read the stem's output, without parameters
        inputs = width
        for stage in range(STAGES):
            planes = width * 2**stage
            blocks = []
            for i in range(count):
                stride = 2 if stage and not i else 1
                blocks.append(BasicBlock(inputs, planes, stride, _shortcut))
                inputs = planes
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, channels, H, W) -> logits (B, classes)."""
        x = self.stem(torch.relu(self.bn1(self.conv1(x))))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.avgpool(x).flatten(1))
