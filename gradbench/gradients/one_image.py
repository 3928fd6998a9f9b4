"""Passes of one image alone, the measure of what a batch gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from gradbench.errors import GradbenchError
from gradbench.gradients.cached_tensors import as_written
from gradbench.gradients.memory import out_of_memory
from gradbench.gradients.refusals import close
from gradbench.gradients.state import suspended_hooks

Result = TypeVar("Result")


def forward_one(model: nn.Module, image: Tensor) -> Tensor:
    """Return the output for one image (1, ...), with the caller's hooks suspended.

    The caller does not know of this pass: a hook that counts or collects must not see it.
    """
    try:
        with suspended_hooks(model) as suspended, as_written(model):
            return model(image.clone())  # networks may change their images in place
    except (KeyError, AttributeError, TypeError, NameError) as fault:
        if not suspended:
            raise
        raise GradbenchError(
            f"the network does not work without the hooks on {', '.join(suspended)} "
            f"({type(fault).__name__}): make what they do part of its forward"
        ) from fault


def try_channels_last(
    work: Callable[[Tensor], Result], image: Tensor, wanted: bool
) -> tuple[Result, bool]:
    """Work on images with channels last, or as they are where that fails; say which of the two."""
    if wanted:
        try:
            return work(image.contiguous(memory_format=torch.channels_last)), True
        except RuntimeError as fault:  # `view` needs a tensor that is contiguous
            if out_of_memory(fault):
                raise
    return work(image), False


def same_output(alone: Tensor, together: Tensor) -> Tensor:
    """Return an image's output alone, in the shape of that in a batch, (1, ...); refuse another."""
    if alone.numel() == together.numel():
        alone = alone.reshape(together.shape)
        if close(alone.detach(), together):
            return alone
    raise GradbenchError(
        "the output for an image alone differs from its output in a batch: the network mixes the "
        "images of a batch, or a forward hook that was placed on it changes its output"
    )
