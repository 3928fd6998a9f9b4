"""The recipe of training: its settings, and what they make of images, rates and precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import get_type_hints

import torch
from torch import Tensor
from torch.nn import functional

from gradbench.config import AugmentSection, TrainingSection
from gradbench.data.imageset import to_float
from gradbench.support.typed import check_type


@dataclass(frozen=True)
class Recipe:
    """The settings of training f.

    `lr` is the largest learning rate, `schedule` `onecycle` (linear rise over the first 30 %,
    linear fall) or `cosine`, `weight_decay` acts on every parameter, `pad` is the largest shift of
    a random crop in pixels (0 for none), `flip` mirrors images at random (off for digits and
    signs), `precision` is `auto` (bfloat16 autocast where the hardware has it), `bfloat16` or
    `float32`. `reduced` is the share of the epochs, the first ones, that see images at three
    quarters of their height and width, at little more than half the cost; for networks that take
    any size.
    """

    epochs: int = 30
    batch: int = 128
    lr: float = 0.1
    schedule: str = "onecycle"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    pad: int = 4
    flip: bool = True
    precision: str = "auto"
    reduced: float = 0.0

    def __post_init__(self):
        values = vars(self)
        for section, due in (("training", TrainingSection), ("dataset.augment", AugmentSection)):
            check_type({name: values[name] for name in get_type_hints(due)}, due, section)

    def learning_rate(self, progress: float) -> float:
        """Return the learning rate at a fraction of training in [0, 1]."""
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * progress))
        return self.lr * (progress / 0.3 if progress < 0.3 else (1 - progress) / 0.7)

    def reduces(self, progress: float) -> bool:
        """Tell whether images are made smaller at a fraction of training in [0, 1]."""
        return progress < self.reduced

    def augment(self, pixels: Tensor, generator: torch.Generator, progress: float = 1.0) -> Tensor:
        """Return uint8 images (B, C, H, W) as floats in [0, 1], cropped and mirrored at random.

        `progress` is the fraction of training that is done: below `reduced` the images are made
        smaller. The generator is on the CPU, so that the draw does not depend on the device.
        """
        pixels = random_crop(pixels, self.pad, generator)
        if self.flip:
            pixels = random_flip(pixels, generator)
        images = to_float(pixels)
        if self.reduces(progress):
            size = [side * 3 // 4 for side in images.shape[2:]]
            images = functional.interpolate(images, size, mode="bilinear", antialias=True)
        return images.contiguous(memory_format=torch.channels_last)

    def autocast(self, device: torch.device) -> Callable:
        """Return a function that makes the context of a forward pass in the recipe's precision."""
        enabled = resolve_precision(self, device).precision == "bfloat16"
        return lambda: torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def random_crop(images: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    """Shift every image (B, C, H, W) by up to `pad` pixels each way, black beyond the border."""
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


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image of (B, C, H, W) left to right with probability one half."""
    mirrored = torch.rand(len(images), generator=generator).lt(0.5).to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def resolve_precision(recipe: Recipe, device: torch.device) -> Recipe:
    """Return a recipe with `precision=auto` replaced by the best that the device has."""
    if recipe.precision != "auto":
        return recipe
    return replace(recipe, precision="bfloat16" if _has_bfloat16(device) else "float32")


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":  # torch has no public name for this
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, bool)() for name in names)
    return False
