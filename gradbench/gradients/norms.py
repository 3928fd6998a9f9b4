"""Squared gradient norms of every parameter tensor, image by image (Lee and AlRegib 2020)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from gradbench.gradients.asked import Options, run
from gradbench.gradients.labels import Label
from gradbench.gradients.losses import PerImage


@dataclass(frozen=True)
class GradientNorms:
    """Squared norms of the gradients of each image's loss.

    Args:
        names: names of the d parameter tensors, in the order of `model.named_parameters()`.
        values: squared norms, (B, d), float32, or float64 where a parameter is float64.
        outputs: logits of the same forward pass, (B, N).
        routes: name -> how it was computed: a layer and its route, 'one image at a time' where
            there is none, 'one image at a time too' for those beside it, or 'unused' for a
            parameter that does not act on the loss (its norm is 0; a change of it does not change
            the outputs either).
        halvings: how often a chunk was halved because memory did not suffice.
        chunk: images per pass at the beginning.
    """

    names: list[str]
    values: Tensor
    outputs: Tensor
    routes: dict[str, str] = field(default_factory=dict)
    halvings: int = 0
    chunk: int = 0


def squared_norms(
    model: nn.Module,
    images: Tensor,
    *,
    label: str | Label = "ones",
    loss: str | PerImage = "bce",
    reduction: str | None = None,
    parameters: Iterable[str] | Callable[[str], bool] | None = None,
    chunk: int | None = None,
    precision: str | None = None,
    channels_last: bool | None = None,
    routes: str | Mapping[str, str] | None = None,
    compiled: bool = False,
) -> GradientNorms:
    """Return the squared gradient norm of every parameter tensor for every image.

    v(x_b) = (||dJ_b/dtheta_0||^2, ..., ||dJ_b/dtheta_{d-1}||^2), Lee and AlRegib 2020.
    The model must be in evaluation mode; it comes back as it was. Hooks that the caller has placed
    on it see every image exactly once, in order, unless memory ran out (`halvings`). Of a compiled
    or data-parallel model the network inside is taken, uncompiled, with its names of parameters.

    Args:
        model: network from images to logits (B, N).
        images: (B, C, H, W), or anything with images first that the network takes; on any device.
        label: confounding label: ones, zeros, `KHot(classes)`, `RandomKHot(k, seed)`.
        loss: bce, ce_uniform, ce_sum_one_hot, mse, or a function from the network's outputs, or
            from (images, outputs), to one value per image, (B,).
        reduction: mean or sum over the N outputs; None is the usual one of the loss.
        parameters: names, or a function that says whether a name is wanted; None means all.
        chunk: images per pass; None chooses from shapes and device alone.
        precision: None computes in the model's own number format, TensorFloat-32 off; float32,
            float64 (on a copy where the model has another), tf32, or bfloat16 and float16 by
            autocast with float32 sums.
        channels_last: layout of four-dimensional images; None chooses by device and precision, and
            goes without where the network cannot take it.
        routes: a route for all layers that have it, or name -> route: direct, gram, native,
            outer, 'one image at a time'; None takes the cheapest by a static model (`explain`).
        compiled: use `torch.compile` for the sums of batch normalisations, which needs a C++
            compiler and some seconds at the first call. (Compiling the windows of Gram matrices
            made them 2 to 3 times slower on a CPU; the rest is products of matrices.)

    Raises:
        GradbenchError: for unknown names, images that the network does not take, and wherever the
            result could be silently wrong: batch statistics, active dropout, a network or loss
            that mixes images, outputs not finite, parameters that act where autograd does not see
            it (`no_grad`, `detach`, argmax, tensors made of them and kept from earlier passes).
    """
    given = (label, loss, reduction, parameters, chunk, precision, channels_last, routes, compiled)
    answer = run(model, images, Options(*given))
    return GradientNorms(
        answer.names,
        answer.found.norms,
        answer.found.outputs,
        {name: str(taken) for name, taken in answer.taken.items()},
        answer.halvings,
        answer.chunk,
    )
