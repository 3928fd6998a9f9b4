"""A task, checked and complete, and the statistics and routes that result from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gradbench.gradients.losses import PairLoss
from gradbench.gradients.rules.base import Rule

ALONE = "one image at a time"
# of parameters that have a rule, beside one that has none: the passes give their gradients too
BESIDE = "one image at a time too"
UNUSED = "unused"
MATERIALISED = "materialised"


@dataclass(frozen=True)
class Task:
    """Network and images in the wanted number format, and the statistics that are requested.

    Args:
        model: the network, in evaluation mode.
        images: images first.
        device: of the network.
        chunk: images per pass.
        precision: name of the number format, or None.
        channels_last: whether images are laid out so where the network allows it.
        loss: function from images and outputs to one value per image.
        known_loss: whether it is one of `LOSSES`.
        parameters: name -> requested parameter, d of them; none where outputs are.
        directions: parameter -> direction of the same shape, or none.
        forced: parameter -> route that it must take.
        scale: factor of the losses in the backward pass; statistics are those without it.
    """

    model: nn.Module
    images: Tensor
    device: torch.device
    chunk: int
    precision: str | None
    channels_last: bool
    loss: PairLoss | None = None
    known_loss: bool = False
    parameters: Mapping[str, nn.Parameter] = field(default_factory=dict)
    directions: Mapping[Tensor, Tensor] = field(default_factory=dict)
    forced: Mapping[Tensor, str] = field(default_factory=dict)
    scale: float = 1.0


@dataclass(frozen=True)
class Statistics:
    """Statistics of some images: squared norms (B, d), inner products (B, d) or None, outputs."""

    norms: Tensor
    products: Tensor | None
    outputs: Tensor


@dataclass(frozen=True)
class Route:
    """How one parameter was computed: kind of layer, route; for a large one what decided it."""

    kind: str
    route: str
    rule: Rule | None = None
    x: torch.Size | None = None
    delta: torch.Size | None = None

    def __str__(self) -> str:
        """Return kind and route as one text."""
        return f"{self.kind} {self.route}" if self.kind else self.route
