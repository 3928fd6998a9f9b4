"""Squared gradient norms of every parameter tensor, image by image, from one batched pass.

In evaluation mode the loss J_b depends on image b alone, so one backward pass of sum_b J_b gives at
every layer the gradient delta_b with respect to its output. The norm of the weight gradient follows
from the layer's input and delta_b (rules.py, convolution.py) the moment delta_b arrives; ordinary
weight gradients are never computed, and what a layer kept is dropped at once. Whatever the rules do
not account for completely (graph.py) is computed one image at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import sqrt

import torch
from torch import Tensor, nn

from gradbench.errors import GradbenchError, unknown
from gradbench.gradients import guard
from gradbench.gradients.graph import ownership
from gradbench.gradients.labels import Label
from gradbench.gradients.losses import PerImage, as_loss
from gradbench.gradients.recorder import Call, Recorder
from gradbench.gradients.single import Witness, squared_norms_alone


@dataclass(frozen=True)
class GradientNorms:
    """Squared norms of the gradients of each image's loss.

    Args:
        names: names of the d parameter tensors, in the order of `model.named_parameters()`.
        values: squared norms, (B, d), float32, or float64 where a parameter is float64.
        outputs: logits of the same forward pass, (B, N).
        routes: name -> how it was computed: a layer and its route, 'one image at a time', or
            'unused' for a parameter that does not act on the loss (its norm is 0).
    """

    names: list[str]
    values: Tensor
    outputs: Tensor
    routes: dict[str, str] = field(default_factory=dict)


def squared_norms(
    model: nn.Module,
    images: Tensor,
    *,
    label: str | Label = "ones",
    loss: str | PerImage = "bce",
    reduction: str | None = None,
    parameters: Iterable[str] | Callable[[str], bool] | None = None,
    chunk: int | None = None,
) -> GradientNorms:
    """Return the squared gradient norm of every parameter tensor for every image.

    v(x_b) = (||dJ_b/dtheta_0||^2, ..., ||dJ_b/dtheta_{d-1}||^2), Lee and AlRegib 2020.
    The model must be in evaluation mode; it comes back as it was. Hooks that the caller has placed
    on it see every image exactly once, in order.

    Args:
        model: network from images to logits (B, N).
        images: (B, C, H, W).
        label: confounding label: ones, zeros, `KHot(classes)`, `RandomKHot(k, seed)`.
        loss: bce, ce_uniform, ce_sum_one_hot, mse, or a function from the network's outputs to one
            value per image, (B,).
        reduction: mean or sum over the N outputs; None is the usual one of the loss.
        parameters: names, or a function that says whether a name is wanted; None means all.
        chunk: images per pass; None chooses from shapes and device alone.

    Raises:
        GradbenchError: for unknown names, and wherever the result could be silently wrong: batch
            statistics, active dropout, a network or loss that mixes images, outputs not finite.
    """
    named = _select(model, parameters)
    per_image = as_loss(loss, label, reduction)
    if images.ndim < 1 or len(images) == 0:
        raise GradbenchError("no images were given")
    if chunk is not None and chunk < 1:
        raise GradbenchError(f"chunk {chunk}: at least 1")
    guard.refuse_training_mode(model)
    device = next((p.device for p in named.values()), images.device)
    pieces = images.split(chunk or default_chunk(images.shape, device))
    # Autocast stays as the caller has it in the forward passes; rules run in full precision.
    run = _Pass(model, per_image, isinstance(loss, str), list(named.values()))
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        guard.only_these_require_grad(model, list(named.values())),
    ):
        done = [run(piece, device) for piece in pieces]
    values, outputs = (torch.cat(parts).to(images.device) for parts in zip(*done))
    return GradientNorms(
        list(named), values, outputs, {name: run.routes[p] for name, p in named.items()}
    )


def default_chunk(shape: Sequence[int], device: torch.device) -> int:
    """Return the images per pass: 64 of 32x32 pixels on a CPU, 512 elsewhere, fewer when larger.

    Networks for large images reduce them early, hence the square root of the number of pixels.
    """
    pixels = 1
    for size in shape[-2:]:
        pixels *= size
    images = (64 if device.type == "cpu" else 512) * sqrt(32 * 32 / max(pixels, 1))
    return max(1, min(1024, int(images)))


def _select(
    model: nn.Module, wanted: Iterable[str] | Callable[[str], bool] | None
) -> dict[str, nn.Parameter]:
    """Return name -> parameter of the wanted parameters, in the model's order."""
    named = dict(model.named_parameters())
    if wanted is None:
        return named
    if callable(wanted):
        keep = {name for name in named if wanted(name)}
    else:
        keep = {wanted} if isinstance(wanted, str) else set(wanted)
    for name in sorted(keep - set(named)):
        raise unknown("parameter", name, named)
    if not keep:
        raise GradbenchError("no parameter was selected")
    return {name: p for name, p in named.items() if name in keep}


class _Pass:
    """Forward and backward pass of one chunk after the other."""

    def __init__(self, model: nn.Module, loss: PerImage, known: bool, parameters: list[Tensor]):
        self.model = model
        self.loss = loss
        self.known = known
        self.parameters = parameters
        self.column = {p: i for i, p in enumerate(parameters)}
        self.dtype = (
            torch.float64 if any(p.dtype == torch.float64 for p in parameters) else torch.float32
        )
        self.witness: Witness | None = None
        self.owned: dict[Tensor, Call] = {}
        self.routes: dict[Tensor, str] = dict.fromkeys(parameters, "unused")

    def __call__(self, images: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the squared norms (B, d) and the outputs of these images."""
        images = images.detach().to(device)
        self.values = torch.zeros(
            len(images), len(self.parameters), dtype=self.dtype, device=device
        )
        recorder = Recorder(self.parameters, self._reduce)
        try:
            with guard.refuse_randomness(device), recorder:
                # A copy: networks may change it in place, and autograd may not keep the tensors of
                # inference mode.
                outputs = self.model(images.clone())
            _check_outputs(outputs, len(images))
            shared = self._backward(recorder, images, outputs)
        finally:
            recorder.release()
        outputs = outputs.detach()
        if shared:
            columns = [self.column[p] for p in shared]
            norms = squared_norms_alone(self.model, images, outputs, self.loss, shared)
            self.values[:, columns] = norms.to(self.values)
            self.routes.update(dict.fromkeys(shared, "one image at a time"))
        return self.values, outputs

    def _backward(self, recorder: Recorder, images: Tensor, outputs: Tensor) -> list[Tensor]:
        """Run the backward pass; return the parameters that the rules do not account for."""
        if self.witness is None:
            first = outputs.detach()[:1]
            self.witness = Witness(self.model, images[:1], first, self.parameters)
        losses = guard.per_image_loss(self.loss, outputs, self.known)
        if not losses.requires_grad:
            return []
        calls = [
            call
            for call in recorder.calls
            if len(call.x) == len(images) and self.witness.batched(call)
        ]
        graph = ownership(losses.grad_fn, calls, self.parameters)
        self.owned = graph.owned
        if graph.edges:
            torch.autograd.grad(losses.sum(), graph.edges, allow_unused=True)
        return graph.shared

    def _reduce(self, call: Call, delta: Tensor) -> None:
        """Turn a layer's input and output gradient into norms; called by the backward pass."""
        mine = [p for p in call.rules if self.owned.get(p) is call]
        if not mine:
            return
        if call.x._version != call.version:
            raise GradbenchError(
                f"the input of a {call.kind} layer was changed in place after the layer had read it"
            )
        precise = torch.float64 if delta.dtype == torch.float64 else torch.float32
        x, delta = call.x.to(precise), delta.to(precise)
        call.x = None
        with torch.autocast(delta.device.type, enabled=False):
            for p in mine:
                self.values[:, self.column[p]] = call.rules[p](x, delta).to(self.values)
                route = f" {call.route(delta.shape)}" if call.route and p.ndim == 4 else ""
                self.routes[p] = call.kind + route


def _check_outputs(outputs: Tensor, images: int) -> None:
    """Raise unless the network returned one finite row per image."""
    if not isinstance(outputs, Tensor) or outputs.ndim < 1 or len(outputs) != images:
        got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise GradbenchError(
            f"the network must return one row of outputs per image ({images}), but gave {got}"
        )
    if not torch.isfinite(outputs).all():
        raise GradbenchError(
            "the network's outputs are not all finite: look for NaN in its weights or the images"
        )
