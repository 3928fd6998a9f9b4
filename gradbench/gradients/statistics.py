"""The functions for callers: squared norms, alignments with fixed directions, means, outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gradbench.errors import GradbenchError
from gradbench.gradients.arguments import (
    check_directions,
    check_options,
    make_task,
    naming_rejected_images,
    network_inside,
    outputs_task,
)
from gradbench.gradients.cached_tensors import as_written
from gradbench.gradients.engine import compute, differentiating
from gradbench.gradients.losses import Label, PairLoss, PerImage
from gradbench.gradients.memory import in_chunks
from gradbench.gradients.one_image import forward_one, try_channels_last
from gradbench.gradients.precision import arithmetic
from gradbench.gradients.refusals import (
    check_outputs,
    per_image_loss,
    refuse_randomness,
    short_name,
)
from gradbench.gradients.state import same_buffers


@dataclass(frozen=True)
class GradientNorms:
    """Squared norms of the gradients of each image's loss, d parameter tensors.

    `routes` tells how each was computed: a layer and its route, 'one image at a time' where there
    is none, 'one image at a time too' for those beside it, or 'unused' for a parameter that does
    not act on the loss (its norm is 0; a change of it does not change the outputs either).
    """

    names: list[str]  # in the order of `model.named_parameters()`
    values: Tensor  # (B, d), float32, or float64 where a parameter is float64
    outputs: Tensor  # logits of the same forward pass, (B, N)
    routes: dict[str, str] = field(default_factory=dict)
    halvings: int = 0  # of chunks, because memory did not suffice
    chunk: int = 0  # images per pass at the beginning


def squared_norms(
    model: nn.Module,
    images: Tensor,
    *,
    label: str | Label = "ones",
    loss: str | PerImage | PairLoss = "bce",
    reduction: str | None = None,
    parameters: Iterable[str] | Callable[[str], bool] | None = None,
    chunk: int | None = None,
    precision: str | None = None,
    channels_last: bool | None = None,
    routes: str | None = None,
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
        routes: a route for all layers that have it: direct, gram, native, outer, 'one image at a
            time'; None takes the cheapest by a static model (`explain`).

    Raises:
        GradbenchError: for unknown names, images that the network does not take, and wherever the
            result could be silently wrong: batch statistics, active dropout, a network or loss
            that mixes images, outputs not finite, parameters that act where autograd does not see
            it (`no_grad`, `detach`, argmax, tensors made of them and cached from earlier passes).
    """
    task = make_task(
        *(model, images),
        label=label,
        loss=loss,
        reduction=reduction,
        parameters=parameters,
        chunk=chunk,
        precision=precision,
        channels_last=channels_last,
        routes=routes,
    )
    measured, chosen, halvings = compute(task)
    routes = {name: str(route) for name, route in chosen.items()}
    norms = measured.norms
    return GradientNorms(list(routes), norms, measured.outputs, routes, halvings, task.chunk)


@dataclass(frozen=True)
class Alignments:
    """The alignment of each image's gradient with fixed directions; see `GradientNorms`.

    With stacks of K directions, products and cosines are (B, d, K).
    """

    names: list[str]
    products: Tensor  # inner products <dJ_b/dtheta_l, v_l>, (B, d)
    cosines: Tensor  # the same divided by both lengths, (B, d), -1 to 1; 0 where a length is 0
    squared_norms: Tensor  # (B, d)
    outputs: Tensor
    routes: dict[str, str]
    halvings: int = 0


def alignments(
    model: nn.Module, images: Tensor, directions: Mapping[str, Tensor], **options: Any
) -> Alignments:
    """Return inner products and cosines of per-image gradients with directions of every tensor.

    c(x_b)_l = <dJ_b/dtheta_l, v_l>, the gradient term of GradCon's score (Kwon et al. 2020) when
    v_l is a mean gradient and the loss a function of (images, outputs). Where a layer's squared
    norm takes the gradients themselves, they are multiplied with all directions at once; elsewhere
    the product is the layer itself applied to its input with weight v_l, times delta.
    `directions` are name -> one fixed direction of that parameter's shape, or K of them, (K,
    *shape), for which one pass is made; only these parameters are computed. Options are those of
    `squared_norms`, but for parameters.

    Raises:
        GradbenchError: for a name that the model does not have, a direction of another shape or
            not finite, and wherever `squared_norms` raises.
    """
    check_options(options, without="parameters")
    check_directions(directions, network_inside(model))
    task = make_task(model, images, directions, parameters=list(directions), **options)
    measured, chosen, halvings = compute(task)
    products, norms = measured.products, measured.norms
    of_names = (task.directions[task.parameters[name]] for name in chosen)
    lengths = torch.stack([v.to(products).reshape(len(v), -1).norm(dim=1) for v in of_names])
    both = norms.sqrt()[:, :, None] * lengths
    cosines = torch.where(both > 0, products / both, 0.0).clamp(-1, 1)
    if all(v.ndim == task.parameters[name].ndim for name, v in directions.items()):
        products, cosines = products[:, :, 0], cosines[:, :, 0]
    routes = {name: str(route) for name, route in chosen.items()}
    return Alignments(list(routes), products, cosines, norms, measured.outputs, routes, halvings)


def mean_gradients(
    model: nn.Module, images: Tensor, groups: Tensor, count: int | None = None, **options: Any
) -> dict[str, Tensor]:
    """Return the mean gradient of every group of images, name -> (K, *shape), for `alignments`.

    An ordinary backward pass of the sum of losses, chunk by chunk of each group; sums in float64,
    results in the network's number format, on its device. Of an embedding with
    `scale_grad_by_freq` the gradient depends on the batch, and so does its mean here.

    Args:
        model: network in evaluation mode.
        images: as of `squared_norms`.
        groups: (B,) whole numbers from 0, the group of each image: its class.
        count: K, groups in all; None for those up to the largest. One without images has zeros.
        options: of `squared_norms`, but for routes.

    Raises:
        GradbenchError: for groups that do not fit the images, gradients that are not finite, and
            where `squared_norms` refuses its arguments or the network's mode.
    """
    check_options(options, without="routes")
    task = make_task(model, images, **options)
    groups = torch.as_tensor(groups)
    if groups.shape != (len(task.images),) or groups.is_floating_point() or int(groups.min()) < 0:
        raise GradbenchError(
            f"the groups are {tuple(groups.shape)} of {short_name(groups.dtype)}: give a whole "
            f"number from 0 for each of the {len(task.images)} images"
        )
    count = int(groups.max()) + 1 if count is None else count
    if count <= int(groups.max()):
        raise GradbenchError(f"group {int(groups.max())} of {count}: they are numbered from 0")
    parameters = list(task.parameters.values())
    means = [p.new_zeros(count, *p.shape) for p in parameters]

    def gradients(images: Tensor) -> list[Tensor]:
        images = images.to(task.device)
        with refuse_randomness(task.device):
            outputs = forward_one(task.model, images.clone())
        check_outputs(outputs, images, task.model)
        value = per_image_loss(task.loss, images, outputs, task.known_loss).sum()
        if not value.requires_grad:
            return [torch.zeros_like(p) for p in parameters]
        found = torch.autograd.grad(
            value * task.scale, parameters, allow_unused=True, materialize_grads=True
        )
        return [(g.to_dense() if g.is_sparse else g).double() / task.scale for g in found]

    with differentiating(task):
        for group in range(count):
            rows = torch.nonzero(groups == group).flatten()
            if not len(rows):
                continue
            parts, _ = in_chunks(gradients, task.images[rows.to(task.images.device)], task.chunk)
            for mean, sums in zip(means, zip(*parts)):
                mean[group] = sum(sums) / len(rows)
    if not all(mean.isfinite().all() for mean in means):
        raise GradbenchError("the mean gradients are not all finite: the loss overflows")
    return dict(zip(task.parameters, means))


def outputs(
    model: nn.Module,
    images: Tensor,
    *,
    chunk: int | None = None,
    precision: str | None = None,
    channels_last: bool | None = None,
) -> Tensor:
    """Return the outputs for all images, (B, ...), the same bits as those of `squared_norms`.

    Images, settings and modes that `squared_norms` refuses are refused here, too.
    """
    task = outputs_task(model, images, chunk, precision, channels_last)
    model, device = task.model, task.device
    with torch.no_grad(), arithmetic(precision, device), same_buffers(model):
        # The engine decides on the layout by its first image, so this does, too.
        first = task.images[:1].to(device)
        with naming_rejected_images(model, first):
            alone, last = try_channels_last(partial(forward_one, model), first, task.channels_last)
        check_outputs(alone, first, model)

        def forward(images: Tensor) -> Tensor:
            nonlocal last
            images = images.to(device)
            with refuse_randomness(device), as_written(model):
                values, last = try_channels_last(lambda x: model(x.clone()), images, last)
            check_outputs(values, images, model)
            return values

        parts, _ = in_chunks(forward, task.images, task.chunk)
    return torch.cat(parts).to(images.device)
