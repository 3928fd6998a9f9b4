"""What the sensor and the video stream do: noise, and blocks that are decoded wrongly."""

from __future__ import annotations

import torch
from torch import Tensor

from gradbench.challenges.corruptions.noise import gaussian_noise
from gradbench.challenges.counter import uniform
from gradbench.challenges.cure_like.base import CureLike, scale

BLOCK = 4
"""Pixels of a side of a block."""
ASTRAY = 8
"""Pixels by which a wrong motion vector misses at most."""
COLOUR = 0.15
"""Largest error of a block's mean in each channel."""


class Noise(CureLike):
    """Independent normal noise on every value."""

    type = "noise"
    most = 4

    def change(self, images: Tensor, keys: Tensor, strength: float) -> Tensor:
        """Return noisy images."""
        return gaussian_noise(images, keys, strength)


class CodecError(CureLike):
    """Blocks of a damaged video stream: taken from a wrong place, and of a wrong colour."""

    type = "codec_error"

    def change(self, images: Tensor, keys: Tensor, strength: float) -> Tensor:
        """Return images with damaged blocks."""
        return codec_error(images, keys, strength)


def codec_error(images: Tensor, keys: Tensor, share: float) -> Tensor:
    """Replace a share of all blocks; with the share, more are damaged and none is mended.

    A damaged block shows what stands up to ASTRAY pixels away, edges repeated, plus a constant in
    each channel.
    """
    count, channels, height, width = images.shape
    side = max(round(BLOCK * scale(images)), 1)
    rows, columns = torch.arange(height), torch.arange(width)
    across = -(-width // side)
    block = (rows[:, None] // side * across + columns // side).to(images.device)  # (H, W)
    drawn = uniform(keys, (3 + channels, int(block.max()) + 1)).to(images.dtype)
    hit = (drawn[:, 0] < share)[:, block]
    reach = ASTRAY * scale(images)
    moves = ((2 * drawn[:, 1:3] - 1) * reach).round().long()[:, :, block]  # (B, 2, H, W)
    y = (rows[:, None].to(images.device) + moves[:, 0]).clamp_(0, height - 1)
    x = (columns.to(images.device) + moves[:, 1]).clamp_(0, width - 1)
    places = (y * width + x).view(count, 1, -1).expand(-1, channels, -1)
    wrong = images.flatten(2).gather(2, places).view(images.shape)
    wrong = (wrong + COLOUR * (2 * drawn[:, 3:] - 1)[:, :, block]).clamp_(0, 1)
    return torch.where(hit[:, None], wrong, images)
