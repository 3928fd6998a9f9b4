"""How f is trained: the settings, and what the hardware makes of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import get_type_hints

import torch

from gradbench.settings import Augment, Training
from gradbench.support.described import check


@dataclass(frozen=True)
class Recipe:
    """How f is trained.

    Attributes:
        epochs: passes over the training images.
        batch: images in a step.
        lr: largest learning rate.
        schedule: `onecycle` (linear rise over the first 30 %, linear fall) or `cosine`.
        momentum: of Nesterov's method.
        weight_decay: on every parameter.
        pad: largest shift of a random crop in pixels, 0 for none.
        flip: mirror images at random; off for digits and signs.
        precision: `auto` (bfloat16 autocast where the hardware has it), `bfloat16` or `float32`.
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

    def __post_init__(self):
        given = vars(self)
        for section, due in (("training", Training), ("dataset.augment", Augment)):
            check({k: given[k] for k in get_type_hints(due)}, due, section)

    def rate(self, done: float) -> float:
        """Return the learning rate at a fraction of training in [0, 1]."""
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * done))
        return self.lr * (done / 0.3 if done < 0.3 else (1 - done) / 0.7)


def resolved(recipe: Recipe, device: torch.device) -> Recipe:
    """Return a recipe with `precision=auto` replaced by what the device has."""
    if recipe.precision != "auto":
        return recipe
    return replace(recipe, precision="bfloat16" if _has_bfloat16(device) else "float32")


def autocast(recipe: Recipe, device: torch.device) -> Callable:
    """Return what makes the context of a forward pass in the recipe's precision."""
    wanted = resolved(recipe, device).precision == "bfloat16"
    return lambda: torch.autocast(device.type, torch.bfloat16, enabled=wanted)


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":  # torch has no public name for this
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, bool)() for name in names)
    return False
