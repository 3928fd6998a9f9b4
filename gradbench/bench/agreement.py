"""Whether two ways to the same squared norms agree: a fast wrong number is worth nothing.

Rounding alone changes float32 norms by about 1e-6, but for an input of a ReLU within rounding of
zero, whose gradient passes or not: then every tensor before it changes by up to a hundredth, for
this image. Another memory layout is enough to bring that about (DenseNet: in half of the images).
So an image that agrees in all tensors is proof, one that does not is none, and a wrong formula is
told by its being wrong for most images.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

FLOOR = 1e-6
"""Share of an image's largest squared norm below which differences count against this share."""
TOLERANCES = {"float32": 1e-3, "float64": 1e-9}
"""What a quarter of the images must stay below, by precision; the others are not judged."""
KINKS = 0.1
"""What every image must stay below."""


class Difference(NamedTuple):
    """Largest relative difference over all tensors: of all images, and of the best quarter."""

    largest: float
    quartile: float


def difference(norms: Tensor, reference: Tensor) -> Difference:
    """Return how far norms are from the reference, by the tensor that is furthest.

    Args:
        norms: squared norms (b, d) of the first b images.
        reference: squared norms (B, d) of all images.
    """
    by_image = relative(norms, reference[: len(norms)]).amax(1).sort().values
    return Difference(float(by_image[-1]), float(by_image[(len(by_image) - 1) // 4]))


def relative(norms: Tensor, reference: Tensor) -> Tensor:
    """Return |n - r| / max(r, FLOOR max_l r), infinite where a norm is not finite.

    Args:
        norms: squared norms (B, d).
        reference: the same, exact.
    """
    norms, reference = norms.double().cpu(), reference.double().cpu()
    floor = FLOOR * reference.amax(1, keepdim=True)
    scale = reference.maximum(floor).clamp_min(1e-300)
    return ((norms - reference).abs() / scale).nan_to_num(nan=torch.inf, posinf=torch.inf)


def agrees(found: Difference | None, precision: str) -> bool | None:
    """Tell whether a difference is one of rounding; None where that is not judged."""
    tolerance = TOLERANCES.get(precision)
    if found is None or tolerance is None:
        return None
    return found.quartile <= tolerance and found.largest <= KINKS
