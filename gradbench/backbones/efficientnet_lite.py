"""EfficientNet-Lite0 (Google 2020): EfficientNet-B0 without squeeze-and-excitation, with ReLU6.

https://arxiv.org/abs/1905.11946; the changes of Lite are told at
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite. Names in the state
dict are those of the PyTorch packages of EfficientNet (_conv_stem, _blocks.0._bn1, _fc).
"""

from torch import Tensor, nn
from torch.nn import functional

# expansion, outputs, blocks, stride of the first, size of the kernel
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
STEM, HEAD, DROPOUT = 32, 1280, 0.2


class SameConv2d(nn.Conv2d):
    """Convolution without bias, padded as TensorFlow's "same": an odd pixel right and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride))."""
        sides = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size, self.stride):
            missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            sides += [missing // 2, missing - missing // 2]
        return super().forward(functional.pad(x, sides))


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """Inverted bottleneck: expansion, depthwise convolution, projection, sum where shapes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, kernel: int):
        super().__init__()
        inner, self.summed = inputs * expansion, stride == 1 and inputs == outputs
        if expansion > 1:
            self._expand_conv, self._bn0 = SameConv2d(inputs, inner, 1), _batch_norm(inner)
        self._depthwise_conv = SameConv2d(inner, inner, kernel, stride, groups=inner)
        self._bn1 = _batch_norm(inner)
        self._project_conv, self._bn2 = SameConv2d(inner, outputs, 1), _batch_norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H/stride, W/stride)."""
        y = x
        if hasattr(self, "_expand_conv"):
            y = functional.relu6(self._bn0(self._expand_conv(y)))
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.summed else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 for images of 224x224; with 1,000 classes it has 4,652,008 weights.

    Differs from the paper: blocks are not dropped at random in training.
    """

    # the last block of each size of the maps
    feature_layers = ("_blocks.0", "_blocks.2", "_blocks.4", "_blocks.10", "_blocks.15")

    def __init__(self, classes: int, channels: int = 3):
        super().__init__()
        self._conv_stem, self._bn0 = SameConv2d(channels, STEM, 3, 2), _batch_norm(STEM)
        blocks, inputs = [], STEM
        for expansion, outputs, count, stride, kernel in STAGES:
            for i in range(count):
                blocks.append(Block(inputs, outputs, expansion, 1 if i else stride, kernel))
                inputs = outputs
        self._blocks = nn.Sequential(*blocks)
        self._conv_head, self._bn1 = SameConv2d(inputs, HEAD, 1), _batch_norm(HEAD)
        self._avg_pooling, self._dropout = nn.AdaptiveAvgPool2d(1), nn.Dropout(DROPOUT)
        self._fc = nn.Linear(HEAD, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, channels, H, W) -> logits (B, classes)."""
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        x = functional.relu6(self._bn1(self._conv_head(self._blocks(x))))
        return self._fc(self._dropout(self._avg_pooling(x).flatten(1)))
