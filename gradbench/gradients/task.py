"""What a pass computes, and what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gradbench.gradients.losses import OfBoth
from gradbench.gradients.rules.base import Rule

ALONE = "one image at a time"
BESIDE = "one image at a time too"
"""Of parameters that have a rule, beside one that has none: the passes give their gradients too."""
UNUSED = "unused"
FORMED = "formed"


@dataclass(frozen=True)
class Task:
    """What a pass computes.

    Args:
        model: the network.
        loss: function from images and outputs to one value per image.
        known: whether the loss is one of this room.
        parameters: the asked parameters, d of them.
        directions: parameter -> direction of the same shape, or none.
        forced: parameter -> route that it must take.
        scale: factor of the losses in the backward pass; statistics are those without it.
        channels_last: whether images are laid out so where the network allows it.
        compiled: whether rules that have a compiled form use it.
    """

    model: nn.Module
    loss: OfBoth
    known: bool
    parameters: Sequence[Tensor]
    directions: Mapping[Tensor, Tensor] = field(default_factory=dict)
    forced: Mapping[Tensor, str] = field(default_factory=dict)
    scale: float = 1.0
    channels_last: bool = False
    compiled: bool = False


@dataclass(frozen=True)
class Found:
    """Statistics of some images: squared norms (B, d), inner products (B, d) or None, outputs."""

    norms: Tensor
    products: Tensor | None
    outputs: Tensor


@dataclass(frozen=True)
class Taken:
    """How one parameter was computed: kind of layer, route, and the shapes that decided it."""

    kind: str
    route: str
    rule: Rule | None = None
    x: torch.Size | None = None
    delta: torch.Size | None = None

    def __str__(self) -> str:
        """Return kind and route as one text."""
        return self.route if self.route in (ALONE, BESIDE, UNUSED) else f"{self.kind} {self.route}"
