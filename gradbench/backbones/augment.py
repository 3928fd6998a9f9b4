"""Random crops and flips of a batch, on the device that holds it."""

import torch
from torch import Tensor
from torch.nn import functional


def crop(images: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    """Shift every image by up to `pad` pixels each way, with black beyond the border.

    Args:
        images: (B, C, H, W).
        pad: largest shift in pixels; 0 returns the images as they are.
        generator: on the CPU, so that the draw does not depend on the device.
    """
    if not pad:
        return images
    size, _, height, width = images.shape
    top, left = torch.randint(0, 2 * pad + 1, (2, size), generator=generator).to(images.device)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    padded = functional.pad(images, (pad, pad, pad, pad))
    index = torch.arange(size, device=images.device)[:, None, None]
    # advanced indices around the channel slice put it last: (B, H, W, C)
    return padded[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image of (B, C, H, W) left to right with probability one half."""
    mirrored = torch.rand(len(images), generator=generator).lt(0.5).to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)
