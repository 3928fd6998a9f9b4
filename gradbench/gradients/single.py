"""One image at a time: passes of one image alone, and the exact fallback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from gradbench.errors import GradbenchError
from gradbench.gradients import kept
from gradbench.gradients.guard import close
from gradbench.gradients.losses import OfBoth
from gradbench.gradients.memory import out_of_memory
from gradbench.gradients.rules.base import squared_rows
from gradbench.gradients.state import without_callers_hooks

Result = TypeVar("Result")


def forward_alone(model: nn.Module, image: Tensor) -> Tensor:
    """Return the output for one image (1, ...), with the caller's hooks suspended.

    Raises:
        GradbenchError: when the network does not work without a hook that was placed on it.
    """
    try:
        with without_callers_hooks(model) as suspended, kept.passing(model):
            return model(image.clone())
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
    """Do some work on an image laid out with channels last, or as it is where that fails.

    Returns:
        The result, and whether channels came last.
    """
    if wanted:
        try:
            return work(image.contiguous(memory_format=torch.channels_last)), True
        except RuntimeError as fault:  # `view` needs a tensor that is contiguous
            if out_of_memory(fault):
                raise
    return work(image), False


def compared(alone: Tensor, together: Tensor) -> Tensor:
    """Return the output for one image alone, in the shape of that in a batch.

    Args:
        alone: the output for one image.
        together: the output for this image as computed in a batch, (1, ...).

    Raises:
        GradbenchError: when the two differ.
    """
    if alone.numel() == together.numel():
        alone = alone.reshape(together.shape)
        if close(alone.detach(), together):
            return alone
    raise GradbenchError(
        "the output for an image alone differs from its output in a batch: the network mixes the "
        "images of a batch, or a forward hook that was placed on it changes its output"
    )


def statistics_alone(
    model: nn.Module,
    images: Tensor,
    outputs: Tensor,
    loss: OfBoth,
    parameters: Sequence[Tensor],
    directions: Sequence[Tensor] | None = None,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor | None]:
    """Squared gradient norms, and inner products, by one backward pass per image.

    Args:
        model: the network.
        images: (B, C, H, W).
        outputs: its outputs for the batch, as a check.
        loss: function from images and outputs to one value per image.
        parameters: the parameters to take gradients of; all of them require one.
        directions: one for each parameter, or None.
        scale: factor of the loss in the backward pass; results are those without it.

    Returns:
        (B, number of parameters), and the same of inner products where directions are given.
    """
    norms, products = [], []
    for image, together in zip(images.split(1), outputs.split(1)):
        value = loss(image, compared(forward_alone(model, image), together)).sum() * scale
        found = torch.autograd.grad(value, parameters, allow_unused=True)
        row = statistics_of(found, parameters, directions)
        norms.append(row[0])
        products.append(row[1])
    norms = torch.stack(norms) / scale**2
    return norms, None if directions is None else torch.stack(products) / scale


def statistics_of(
    found: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
    directions: Sequence[Tensor] | None,
) -> tuple[Tensor, Tensor | None]:
    """Return squared norms, and inner products, of one image's gradients, (d,) each.

    Args:
        found: a gradient for each parameter; None stands for zero.
        parameters: the d parameters.
        directions: one for each parameter, or None.
    """
    gradients = [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters)]
    gradients = [g.to_dense() if g.is_sparse else g for g in gradients]
    gradients = [g.to(torch.promote_types(g.dtype, torch.float32)) for g in gradients]
    norms = torch.stack([squared_rows(g[None])[0].double() for g in gradients])
    if directions is None:
        return norms, None
    return norms, torch.stack([(g * v).sum().double() for g, v in zip(gradients, directions)])
