"""A task, checked and complete, and the statistics and routes that result from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gradbench.gradients.losses import PairLoss

ALONE = "one image at a time"
# of parameters that have a rule, beside one that has none: the passes give their gradients too
BESIDE = "one image at a time too"
UNUSED = "unused"
MATERIALISED = "materialised"


@dataclass(frozen=True)
class Task:
    """Network and images in the wanted number format, and the statistics that are requested."""

    model: nn.Module
    images: Tensor
    device: torch.device
    chunk: int  # images per pass
    precision: str | None
    channels_last: bool
    loss: PairLoss | None = None
    known_loss: bool = False  # one of LOSSES, which mix no images
    parameters: Mapping[str, nn.Parameter] = field(default_factory=dict)
    directions: Mapping[Tensor, Tensor] = field(default_factory=dict)  # (K, *shape) each
    route: str | None = None  # that is taken wherever a layer has it
    scale: float = 1.0  # of the losses in the backward pass; statistics are those without it


@dataclass(frozen=True)
class Statistics:
    """Of some images: squared norms (B, d), inner products (B, d, K) or None, outputs."""

    norms: Tensor
    products: Tensor | None
    outputs: Tensor


@dataclass(frozen=True)
class Route:
    """The way one parameter was computed: kind of layer, route, modelled costs of a large one."""

    kind: str
    route: str
    costs: Mapping[str, float] = field(default_factory=dict)  # route -> modelled nanoseconds

    def __str__(self) -> str:
        return f"{self.kind} {self.route}" if self.kind else self.route
