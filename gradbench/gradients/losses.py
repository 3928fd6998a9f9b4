"""Confounding labels and losses of logits against them, one value per image (methods: a.1).

A label is *confounding* when it is no ordinary one: no output, or two and more of the N outputs,
are one (Lee and AlRegib 2020). A label gives its vector once N is known, the same for every image,
so that features do not depend on how images are grouped in batches.

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
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from gradbench.errors import GradbenchError, unknown

PerImage = Callable[[Tensor], Tensor]
"""A loss as a function of the network's outputs, (B,)."""
PairLoss = Callable[[Tensor, Tensor], Tensor]
"""A loss as a function of images and the network's outputs for them, (B,)."""


class Label(Protocol):
    """Anything that can name its vector of zeros and ones."""

    def vector(self, outputs: int) -> Tensor:
        """Return the label of a network with this many outputs: zeros and ones, shape (N,)."""


@dataclass(frozen=True)
class Ones:
    """Every output is one, the published default."""

    def vector(self, outputs: int) -> Tensor:
        """Return N ones."""
        return torch.ones(outputs)


@dataclass(frozen=True)
class Zeros:
    """No output is one."""

    def vector(self, outputs: int) -> Tensor:
        """Return N zeros."""
        return torch.zeros(outputs)


@dataclass(frozen=True)
class KHot:
    """The outputs with these indices, at least two, are one, the others zero."""

    classes: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the classes as far as that is possible before N is known."""
        object.__setattr__(self, "classes", tuple(self.classes))
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise GradbenchError(
                f"label KHot({self.classes}) is not confounding: name two or more different classes"
            )

    def vector(self, outputs: int) -> Tensor:
        """Return N zeros with ones at the named outputs; refuses a class outside 0 .. N-1."""
        wrong = [c for c in self.classes if not 0 <= c < outputs]
        if wrong:
            raise GradbenchError(
                f"label KHot names class {wrong[0]}, but the network has classes 0 to {outputs - 1}"
            )
        vector = torch.zeros(outputs)
        vector[list(self.classes)] = 1
        return vector


@dataclass(frozen=True)
class RandomKHot:
    """A random set of k outputs, 2 to N, is one; the seed decides it, once for all images."""

    k: int
    seed: int = 0

    def vector(self, outputs: int) -> Tensor:
        """Return N zeros with ones at k outputs drawn without replacement."""
        if not 2 <= self.k <= outputs:
            raise GradbenchError(f"label RandomKHot has k = {self.k}: choose 2 to {outputs}")
        drawn = torch.randperm(outputs, generator=torch.Generator().manual_seed(self.seed))
        return KHot(tuple(drawn[: self.k].tolist())).vector(outputs)


def as_label(label: str | Label) -> Label:
    """Return the label object for a name, or the object itself, which must have a `vector`."""
    named = {"ones": Ones(), "zeros": Zeros()}
    if isinstance(label, str) and label in named:
        return named[label]
    if isinstance(label, str) or not callable(getattr(label, "vector", None)):
        name = label if isinstance(label, str) else repr(label)
        raise unknown("label", name, (*named, "KHot(classes)", "RandomKHot(k, seed)"))
    return label


def _vector(label: Label, outputs: int) -> Tensor:
    """Return a label's vector, checked: one of the caller's own may return anything."""
    vector = label.vector(outputs)
    if not isinstance(vector, Tensor) or vector.shape != (outputs,) or not vector.isfinite().all():
        got = tuple(vector.shape) if isinstance(vector, Tensor) else type(vector).__name__
        raise GradbenchError(
            f"label {type(label).__name__} must give one finite number for each output, shape "
            f"({outputs},), but gave {got}"
        )
    return vector


# name: terms of the loss as a function of logits (B, N) and label (N,), its usual reduction
LOSSES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    # Through log-sigmoids: the gradient sigmoid(z) - 1 of the library's own form loses all its
    # digits in float32 from z = 17 on.
    "bce": (lambda z, y: -(y * F.logsigmoid(z) + (1 - y) * F.logsigmoid(-z)), "mean"),
    "ce_uniform": (lambda z, y: -F.log_softmax(z, dim=1), "mean"),
    "ce_sum_one_hot": (lambda z, y: -F.log_softmax(z, dim=1) * y, "sum"),
    "mse": (lambda z, y: (z - y).square(), "mean"),
}
REDUCTIONS = ("mean", "sum")


def as_loss(
    loss: str | PerImage | PairLoss = "bce",
    label: str | Label = "ones",
    reduction: str | None = None,
) -> PerImage | PairLoss:
    """Return the function from logits (B, N) to one value per image (B,).

    A function from the network's output, or from images and output, to (B,) is returned as it is,
    takes no label and no reduction, and must not mix images. `ce_uniform` takes no label either.
    The reduction over the N outputs, mean or sum, is by default the usual one of the loss.
    """
    default_label = isinstance(label, str) and label == "ones"
    if not isinstance(loss, str):
        if not callable(loss):
            raise unknown("loss", repr(loss), (*LOSSES, "a function of the logits"))
        if not default_label or reduction is not None:
            raise GradbenchError("a loss function takes no label and no reduction: put them inside")
        return loss
    if loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    terms, usual = LOSSES[loss]
    reduction = reduction or usual
    if reduction not in REDUCTIONS:
        raise unknown("reduction", reduction, REDUCTIONS)
    if loss == "ce_uniform" and not default_label:
        raise GradbenchError("loss ce_uniform takes no label: leave label='ones'")
    target = as_label(label)

    def per_image(logits: Tensor) -> Tensor:
        if logits.ndim != 2:
            raise GradbenchError(
                f"loss {loss} needs logits (images, classes), but the network returned shape "
                f"{tuple(logits.shape)}: pass a function of its output as loss"
            )
        # Half precision has too few digits for a mean over classes.
        if not torch.is_floating_point(logits) or logits.dtype.itemsize < 4:
            logits = logits.float()
        vector = _vector(target, logits.shape[1]).to(logits)
        if loss == "ce_sum_one_hot" and not vector.any():
            raise GradbenchError("loss ce_sum_one_hot with label zeros is constant: name classes")
        values = terms(logits, vector)
        return values.mean(1) if reduction == "mean" else values.sum(1)

    return per_image


def of_images_and_outputs(loss: Callable[..., Tensor]) -> PairLoss:
    """Return a loss as a function of images and outputs: one of outputs ignores the images.

    One of both is told by its two arguments without a default.
    """
    try:
        parameters = inspect.signature(loss).parameters.values()
    except (TypeError, ValueError):  # built-in functions
        parameters = ()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = sum(p.default is p.empty and p.kind in positional for p in parameters)
    if required > 2:
        raise GradbenchError(
            f"the loss function asks for {required} arguments: it gets (outputs) or "
            "(images, outputs)"
        )
    return loss if required == 2 else lambda images, outputs: loss(outputs)
