"""Outputs of f for images after a small step of their pixels downhill on a loss of these outputs.

ODIN (Liang et al. 2018) and the Mahalanobis detector (Lee et al. 2018) step towards a more certain
prediction and read f again: the step changes images that f was trained on more than others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.errors import GradbenchError
from gradbench.gradients.memory import in_chunks
from gradbench.outputs.layer_gradients import as_it_was, differentiable, refuse_mixing
from gradbench.outputs.layers import mean_over_positions
from gradbench.outputs.read import BATCH
from gradbench.support.tensors import gradient_in_pixels


class Loss(Protocol):
    """A loss of an output of f, one value an image."""

    def gradient(self, values: Tensor) -> Tensor:
        """Return the gradient at (B, D) float64 outputs, each row up to a positive factor."""

    def settings(self) -> Mapping[str, Any]:
        """Return all that the loss depends on, JSON-able, tensors by their digest."""


@dataclass(frozen=True)
class PerturbedPass:
    """An output of f for x' = x - m sign(dL/dx), for one or several step sizes m.

    Pixels are in [0, 1], so m is too; after normalisation the step of a channel is m / std, as in
    the public codes of both papers. As there, sign(0) = +1, and x' is not clamped to [0, 1].

    L is a function of the output `source`, `logits` or `layer_means/<layer>`, which is read at x'.
    """

    source: str
    loss: Loss
    magnitudes: tuple[float, ...]

    def __call__(self, backbone: Backbone, images: Tensor) -> Tensor:
        """Return (B, len(magnitudes), D) float32 on the CPU for images (B, C, H, W) in [0, 1].

        Two forward passes and one backward pass an image for one magnitude, one forward pass more
        for each further one; of a layer, the passes end there.

        Raises:
            GradbenchError: see `gradient_signs`.
        """
        step = gradient_signs(backbone, images, self.source, self.loss)
        with as_it_was(backbone), torch.no_grad():
            moved = [read_until(backbone, images - m * step, self.source) for m in self.magnitudes]
        return torch.stack([values.float().cpu() for values in moved], dim=1)

    def in_batches(
        self, backbone: Backbone, pixels: Tensor, advance: Callable[[int], None] | None = None
    ) -> tuple[list[Tensor], int]:
        """Make the pass over any number of images; return the results, and how often it was halved.

        `advance` gets the number of images of every pass that is done.
        """

        def make(batch: Tensor) -> Tensor:
            values = self(backbone, batch.to(backbone.device))
            if advance:
                advance(len(batch))
            return values

        return in_chunks(make, pixels, BATCH)


@dataclass(frozen=True)
class PlannedPass:
    """Perturbed passes that a detector makes in every fold, as far as known before it is fitted.

    Attributes:
        part: of the fold whose images have them: `fit`, `choose` or `measure`.
        source: the output that is read, see `PerturbedPass`.
        steps: number of step sizes.
        most: images of each side at most, None for all.
        chosen: the step is one of those tried, chosen by then.
        what: the pass itself, None where its loss or its step is yet to be found.
    """

    part: str
    source: str
    steps: int
    most: int | None = None
    chosen: bool = False
    what: PerturbedPass | None = None


def gradient_signs(backbone: Backbone, images: Tensor, source: str, loss: Loss) -> Tensor:
    """Return the sign of dL/dx for images (B, C, H, W), with sign(0) = +1; f is left as it was.

    The loss is differentiated in float64 and scaled to a largest entry of 1 for each image, which
    leaves the sign as it is and keeps a saturated softmax from rounding the gradient to zero.

    Raises:
        GradbenchError: if f is in training mode, mixes the images of a batch, draws random numbers,
            or its gradient is not finite or not seen by autograd.
    """
    with differentiable(backbone):
        if len(images) > 1:
            refuse_mixing(lambda two: read_until(backbone, two, source), images[:2].clone())
        pixels = images.clone().requires_grad_()
        values = read_until(backbone, pixels, source)
        towards = loss.gradient(values.detach().cpu().double().clone())
        towards = towards / towards.abs().amax(1, keepdim=True).clamp_min(1e-300)
        gradient = gradient_in_pixels(values, pixels, towards.to(values))
    if not gradient.isfinite().all():
        raise GradbenchError(
            f"the gradient of the pixels through {source} is not finite: the network's weights or "
            "the images hold values that overflow"
        )
    return torch.where(gradient >= 0, 1.0, -1.0)


def read_until(backbone: Backbone, pixels: Tensor, source: str) -> Tensor:
    """Return an output (B, D) of f; the pass through f ends at the layer that is asked for."""
    if source == "logits":
        return backbone(pixels)
    layer = source.split("/", 1)[1]

    def stop(_module, _inputs, output) -> None:
        raise _Reached(mean_over_positions(output, layer, pixels.shape[2:]))

    handle = backbone.network.get_submodule(layer).register_forward_hook(stop)
    try:
        backbone(pixels)
    except _Reached as reached:
        return reached.values
    finally:
        handle.remove()
    raise GradbenchError(
        f"the layer '{layer}' is never called: name others in backbone.feature_layers"
    )


class _Reached(Exception):
    """Ends a forward pass at the layer that was asked for."""

    def __init__(self, values: Tensor):
        super().__init__()
        self.values = values
