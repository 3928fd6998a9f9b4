"""Passes of one image alone: the measure of what a batch gives, and the exact fallback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from gradbench.errors import GradbenchError
from gradbench.gradients.cached_tensors import as_written
from gradbench.gradients.memory import out_of_memory
from gradbench.gradients.refusals import close
from gradbench.gradients.state import callers_hooks
from gradbench.gradients.task import Task

Result = TypeVar("Result")


def forward_one(model: nn.Module, image: Tensor) -> Tensor:
    """Return the output for one image (1, ...), with the caller's hooks suspended.

    The caller does not know of this pass, so that a hook that counts or collects must not see it.

    Raises:
        GradbenchError: when the network does not work without a hook that was placed on it.
    """
    try:
        with callers_hooks(model) as suspended, as_written(model):
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
    """Do some work on images laid out with channels last, or as they are where that fails.

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


def same_output(alone: Tensor, together: Tensor) -> Tensor:
    """Return the output for one image alone, in the shape of its output in a batch, (1, ...).

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


def one_at_a_time(
    task: Task, images: Tensor, outputs: Tensor, parameters: Sequence[Tensor]
) -> tuple[Tensor, Tensor | None, frozenset[Tensor]]:
    """Return squared gradient norms, and inner products, by one backward pass per image.

    Args:
        task: network, loss and directions.
        images: (B, C, H, W).
        outputs: the network's outputs for the batch, as a check.
        parameters: the d parameters to take gradients of; all of them require one.

    Returns:
        (B, d), the same of inner products where directions are given, and the parameters that act
        on the loss of any image.
    """
    rows, inner, acting = [], [], set()
    for image, together in zip(images.split(1), outputs.split(1)):
        value = task.loss(image, same_output(forward_one(task.model, image), together)).sum()
        found = torch.autograd.grad(value * task.scale, parameters, allow_unused=True)
        acting.update(p for g, p in zip(found, parameters) if g is not None)
        gradients = [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters)]
        gradients = [g.to_dense() if g.is_sparse else g for g in gradients]
        # Squares of halves would overflow.
        gradients = [g.float() if g.dtype.itemsize < 4 else g for g in gradients]
        norms = [torch.linalg.vector_norm(g).double() for g in gradients]
        rows.append(torch.stack(norms).square())
        if task.directions:
            pairs = zip(gradients, (task.directions[p] for p in parameters))
            inner.append(torch.stack([(g * v).sum().double() for g, v in pairs]))
    norms = torch.stack(rows) / task.scale**2
    products = torch.stack(inner) / task.scale if inner else None
    return norms, products, frozenset(acting)
