"""Gradients of a loss with respect to the outputs of layers, image by image, in one pass back.

In evaluation mode the loss of an image depends on its own activations alone, so the gradient of the
sum over a batch holds that of every image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.errors import GradbenchError, unknown
from gradbench.gradients.refusals import refuse_randomness, refuse_training_mode
from gradbench.gradients.state import only_these_require_grad, same_buffers
from gradbench.outputs.layers import CONNECTED, Recorder
from gradbench.support.tensors import gradient_in_pixels


def kl_from_uniform(logits: Tensor) -> Tensor:
    """Return KL(u || p) of the uniform distribution from the softmax p of logits (B, C): (B,)."""
    uniform = torch.full_like(logits, 1 / logits.shape[1])
    return (uniform * (uniform.log() - logits.log_softmax(1))).sum(1)


LOSSES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "kl_from_uniform": kl_from_uniform,
    "max_logit": lambda logits: logits.max(1).values,
}
"""Functions of float64 logits (B, C) that give one value an image, (B,)."""


def layer_gradients(
    backbone: Backbone, images: Tensor, loss: str, layers: Sequence[str]
) -> dict[str, tuple[Tensor, Tensor] | GradbenchError]:
    """Return of each layer its output and the gradient of a loss with respect to it, (B, ...).

    f is left as it was. An error stands in the place of a layer that is called more or less than
    once, gives something else than a tensor, or has no part in the logits that autograd sees.

    Args:
        backbone: f in evaluation mode.
        images: (B, C, H, W) in [0, 1].
        loss: one of `LOSSES`.
        layers: names of layers of the network.

    Raises:
        GradbenchError: for an unknown loss; if f is in training mode, mixes the images of a batch,
            or draws random numbers.
    """
    if loss not in LOSSES:
        raise unknown("loss of layer gradients", loss, LOSSES)
    outputs: dict[str, Tensor] = {}
    found: dict[str, tuple[Tensor, Tensor] | GradbenchError] = {}
    with differentiable(backbone):
        if len(images) > 1:
            refuse_mixing(backbone, images[:2].clone())
        with Recorder(backbone, images, [(CONNECTED, layer) for layer in layers]) as recorder:
            # of pixels that require a gradient, everything that comes of them is in the graph
            logits = backbone(images.clone().requires_grad_())
        for layer in layers:
            try:
                outputs[layer] = recorder.values((CONNECTED, layer))
            except GradbenchError as fault:
                found[layer] = fault
        seen = {layer: output for layer, output in outputs.items() if output.requires_grad}
        gradients: dict[str, Tensor | None] = {}
        if seen and logits.requires_grad:
            total = LOSSES[loss](logits.double()).sum()
            of_seen = torch.autograd.grad(total, list(seen.values()), allow_unused=True)
            gradients = dict(zip(seen, of_seen))
    for layer, output in outputs.items():
        gradient = gradients.get(layer)
        found[layer] = (
            GradbenchError(f"autograd does not see how the logits depend on the layer '{layer}'")
            if gradient is None
            else (output.detach(), gradient)
        )
    return found


@contextmanager
def differentiable(backbone: Backbone) -> Iterator[None]:
    """Let autograd record passes of f, of no parameter; afterwards f is as it was.

    Raises:
        GradbenchError: if f is in training mode, or a pass draws random numbers.
    """
    refuse_training_mode(backbone)
    with (
        as_it_was(backbone),
        torch.inference_mode(False),
        torch.enable_grad(),
        refuse_randomness(backbone.device),
    ):
        yield


@contextmanager
def as_it_was(backbone: Backbone) -> Iterator[None]:
    """Let no parameter of f require a gradient; afterwards f is as it was."""
    with only_these_require_grad(backbone, ()), same_buffers(backbone):
        yield


def refuse_mixing(read: Callable[[Tensor], Tensor], two: Tensor) -> None:
    """Raise a GradbenchError if what is read of the second image depends on the first's pixels."""
    two.requires_grad_()
    values = read(two)
    second = torch.zeros_like(values)
    second[1] = 1
    if (gradient_in_pixels(values, two, second)[0].nan_to_num(0, 0, 0) != 0).any():
        raise GradbenchError(
            "the network mixes the images of a batch, so no image has a gradient of its own"
        )
