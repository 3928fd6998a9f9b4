"""The largest and the smallest inputs of f's activation functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gradbench.errors import GradbenchError
from gradbench.outputs.base import BatchContext, Output

ACTIVATIONS = ("relu", "leaky_relu", "gelu", "hardtanh", "elu", "silu")
"""Names of PyTorch's operations; ReLU6 is a `hardtanh`."""


class Extremes(Output):
    """`extremes`: largest and minus smallest input of every activation function, (B, 2 calls).

    Over channels and positions, in the order of the calls (Rajasekaran et al. 2024): of ReLU and
    its relatives, whether they are layers or functions. It takes a forward pass of its own.
    """

    def read(self, context: BatchContext) -> Tensor:
        """Return the extremes.

        Raises:
            GradbenchError: if the network calls no such function, or one on something else than a
                tensor with images first.
        """
        images = context.images
        with torch.no_grad(), _Watch() as watch:
            context.backbone(images)
        kind = type(context.backbone.network).__name__
        if not watch.extremes:
            raise GradbenchError(
                f"{kind} calls none of {', '.join(ACTIVATIONS)}: leave out the detectors that read "
                f"{self.name}"
            )
        if any(len(values) != len(images) for values in watch.extremes):
            raise GradbenchError(
                f"{kind} calls an activation function on something else than a tensor with images "
                f"first: leave out the detectors that read {self.name}"
            )
        return torch.stack(watch.extremes, dim=1)


class _Watch(TorchDispatchMode):
    """Notes the extremes of what goes into activation functions, before they may write to it."""

    def __init__(self):
        super().__init__()
        self.extremes: list[Tensor] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__.removesuffix("_") in ACTIVATIONS:
            inputs = args[0].reshape(len(args[0]), -1)
            self.extremes += [inputs.amax(1), -inputs.amin(1)]
        return func(*args, **(kwargs or {}))
