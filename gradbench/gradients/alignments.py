"""Inner products of per-image gradients with fixed directions (GradCon, Kwon et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradbench.errors import GradbenchError, unknown
from gradbench.gradients.asked import Options, run
from gradbench.gradients.door import check_direction, network_inside
from gradbench.gradients.labels import Label
from gradbench.gradients.losses import PerImage


@dataclass(frozen=True)
class Alignments:
    """How the gradient of each image's loss points along fixed directions.

    Args:
        names: names of the d parameter tensors, in the order of `model.named_parameters()`.
        products: inner products <dJ_b/dtheta_l, v_l>, (B, d).
        cosines: the same divided by both lengths, (B, d), -1 to 1; 0 where a length is 0.
        squared_norms: squared gradient norms, (B, d).
        outputs: outputs of the same forward pass.
        routes: name -> how it was computed.
        halvings: how often a chunk was halved because memory did not suffice.
    """

    names: list[str]
    products: Tensor
    cosines: Tensor
    squared_norms: Tensor
    outputs: Tensor
    routes: dict[str, str]
    halvings: int = 0


def alignments(
    model: nn.Module,
    images: Tensor,
    directions: Mapping[str, Tensor],
    *,
    label: str | Label = "ones",
    loss: str | PerImage = "bce",
    reduction: str | None = None,
    chunk: int | None = None,
    precision: str | None = None,
    channels_last: bool | None = None,
    routes: str | Mapping[str, str] | None = None,
) -> Alignments:
    """Return inner products and cosines of per-image gradients with one direction per tensor.

    c(x_b)_l = <dJ_b/dtheta_l, v_l>, the gradient term of GradCon's score (Kwon et al. 2020) when
    v_l is a mean gradient and the loss a function of (images, outputs). A layer's product is the
    layer itself applied to its input with weight v_l, times delta: no gradient is formed for it.

    Args:
        model: network in evaluation mode; it comes back as it was.
        images: images first.
        directions: name -> fixed direction of that parameter's shape; only these are computed.
        label: see `squared_norms`, as are loss, reduction, chunk, precision, channels_last and
            routes.
        loss: as there.
        reduction: as there.
        chunk: as there.
        precision: as there.
        channels_last: as there.
        routes: as there.

    Raises:
        GradbenchError: for a name that the model does not have, a direction of another shape or
            not finite, and wherever `squared_norms` raises.
    """
    named = dict(network_inside(model).named_parameters())
    if not isinstance(directions, Mapping):
        raise GradbenchError(
            f"directions is a {type(directions).__name__}: give a dictionary from names of "
            "parameters to tensors of their shapes"
        )
    if not directions:
        raise GradbenchError("no direction was given: name -> tensor of that parameter's shape")
    for name, direction in directions.items():
        if name not in named:
            raise unknown("parameter", name, named)
        check_direction(name, direction, named[name])
    options = Options(
        label, loss, reduction, list(directions), chunk, precision, channels_last, routes
    )
    answer = run(model, images, options, directions)
    products, norms = answer.found.products, answer.found.norms
    lengths = torch.stack([directions[n].to(products).norm() for n in answer.names])
    both = norms.sqrt() * lengths
    cosines = torch.where(both > 0, products / both, 0.0).clamp(-1, 1)
    return Alignments(
        answer.names,
        products,
        cosines,
        norms,
        answer.found.outputs,
        {name: str(taken) for name, taken in answer.taken.items()},
        answer.halvings,
    )
