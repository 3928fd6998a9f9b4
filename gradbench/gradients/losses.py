"""Losses of logits against a confounding label, one value per image (methods: a.1).

With logits z (B, N), label y (N,) and p = softmax(z):

| name | terms, i = 1 .. N | usual reduction | gradient with respect to z_i, label ones |
| --- | --- | --- | --- |
| bce | y_i softplus(-z_i) + (1 - y_i) softplus(z_i) | mean | (sigmoid(z_i) - 1) / N |
| ce_uniform | -log p_i | mean | p_i - 1/N |
| ce_sum_one_hot | -y_i log p_i | sum | N p_i - 1 |
| mse | (z_i - y_i)^2 | mean | 2 (z_i - 1) / N |

These are different losses: binary cross entropy compares every output by itself, the two
cross entropies compare the outputs with each other.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from gradbench.errors import GradbenchError, unknown
from gradbench.gradients.labels import Label, as_label, checked

PerImage = Callable[[Tensor], Tensor]
OfBoth = Callable[[Tensor, Tensor], Tensor]
"""A loss as a function of images and the network's outputs for them."""


def bce_terms(logits: Tensor, label: Tensor) -> Tensor:
    """Binary cross entropy of each output, (B, N) and (N,) -> (B, N)."""
    # Through log-sigmoids: the gradient sigmoid(z) - 1 of the library's own form loses all its
    # digits in float32 from z = 17 on.
    return -(label * F.logsigmoid(logits) + (1 - label) * F.logsigmoid(-logits))


def ce_uniform_terms(logits: Tensor, label: Tensor) -> Tensor:
    """Cross entropy of each class; their mean is the one to the uniform distribution."""
    return -F.log_softmax(logits, dim=1)


def ce_sum_one_hot_terms(logits: Tensor, label: Tensor) -> Tensor:
    """Cross entropy of each class that the label names, (B, N) and (N,) -> (B, N)."""
    return -F.log_softmax(logits, dim=1) * label


def mse_terms(logits: Tensor, label: Tensor) -> Tensor:
    """Squared distance of each output from the label, (B, N) and (N,) -> (B, N)."""
    return (logits - label).square()


# name: terms of the loss, its usual reduction
LOSSES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "bce": (bce_terms, "mean"),
    "ce_uniform": (ce_uniform_terms, "mean"),
    "ce_sum_one_hot": (ce_sum_one_hot_terms, "sum"),
    "mse": (mse_terms, "mean"),
}
REDUCTIONS = ("mean", "sum")


def as_loss(
    loss: str | PerImage = "bce", label: str | Label = "ones", reduction: str | None = None
) -> PerImage:
    """Return the function from logits (B, N) to one value per image (B,).

    Args:
        loss: one of `LOSSES`, or any function from the network's output, or from images and output
            (see `of_both`), to (B,), which is returned as it is and must not mix images.
        label: confounding label; `ce_uniform` and functions have none of their own.
        reduction: mean or sum over the N outputs; None is the usual one of the loss.

    Raises:
        GradbenchError: for an unknown name, or a label or reduction where the loss takes none.
    """
    if not isinstance(loss, str):
        if not callable(loss):
            raise unknown("loss", repr(loss), (*LOSSES, "a function of the logits"))
        if not _default(label) or reduction is not None:
            raise GradbenchError("a loss function takes no label and no reduction: put them inside")
        return loss
    if loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    terms, usual = LOSSES[loss]
    reduction = reduction or usual
    if reduction not in REDUCTIONS:
        raise unknown("reduction", reduction, REDUCTIONS)
    if loss == "ce_uniform" and not _default(label):
        raise GradbenchError("loss ce_uniform takes no label: leave label='ones'")
    target = as_label(label)

    def per_image(logits: Tensor) -> Tensor:
        if logits.ndim != 2:
            raise GradbenchError(
                f"loss {loss} needs logits (images, classes), but the network returned shape "
                f"{tuple(logits.shape)}: pass a function of its output as loss"
            )
        if not torch.is_floating_point(logits) or logits.dtype.itemsize < 4:
            logits = logits.float()
        vector = checked(target.vector(logits.shape[1]), target, logits.shape[1]).to(logits)
        if loss == "ce_sum_one_hot" and not vector.any():
            raise GradbenchError("loss ce_sum_one_hot with label zeros is constant: name classes")
        values = terms(logits, vector)
        return values.mean(1) if reduction == "mean" else values.sum(1)

    return per_image


def _default(label: str | Label) -> bool:
    return isinstance(label, str) and label == "ones"


def asks_for_images(loss: Callable[..., Tensor]) -> bool:
    """Whether a loss is a function of (images, outputs): it cannot do without two arguments.

    Raises:
        GradbenchError: when it cannot do without three.
    """
    try:
        parameters = inspect.signature(loss).parameters.values()
    except (TypeError, ValueError):  # built-in functions
        return False
    required = [
        p
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(required) > 2:
        raise GradbenchError(
            f"the loss function asks for {len(required)} arguments: it gets (outputs) or "
            "(images, outputs)"
        )
    return len(required) == 2


def of_both(loss: Callable[..., Tensor]) -> OfBoth:
    """Return a loss as a function of images and outputs, whichever of the two it is."""
    return loss if asks_for_images(loss) else lambda images, outputs: loss(outputs)
