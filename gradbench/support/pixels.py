"""Gradients of what a network says in the pixels that it was shown."""

from __future__ import annotations

import torch
from torch import Tensor

from gradbench.errors import GradbenchError


def gradient_in_pixels(values: Tensor, pixels: Tensor, given: Tensor | None = None) -> Tensor:
    """Return the gradient of values in the pixels that they were made of.

    Args:
        values: made of the pixels, with a graph.
        pixels: which require a gradient.
        given: weights of the values; None for a single value.

    Raises:
        GradbenchError: when autograd does not see how the values depend on the pixels.
    """
    found = None
    if values.requires_grad:
        (found,) = torch.autograd.grad(values, pixels, given, allow_unused=True)
    if found is None:
        raise GradbenchError(
            "autograd does not see how the network's outputs depend on the pixels: its forward "
            "runs under torch.no_grad or inference_mode, detaches, or ends in a decision such as "
            "argmax"
        )
    return found
