"""Functions in which parameters meet the images by broadcasting, and those that only reshape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def _both(*names: str) -> list[Callable]:
    return [getattr(where, name) for name in names for where in (torch, Tensor)
            if hasattr(where, name)]  # fmt: skip


@dataclass(frozen=True)
class Meeting:
    """Where parameters may stand among the arguments of a function that broadcasts them.

    Args:
        kind: name of the operation.
        places: positions and keywords of these arguments; None means all.
        shaped_like: position of the argument whose shape, but for the last dimension, is that of
            the result; None where all arguments are broadcast with each other.
    """

    kind: str
    places: tuple[int | str, ...] | None = None
    shaped_like: int | None = None


def spread(
    meeting: Meeting,
    place: int | str,
    parameter: Tensor,
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
) -> tuple[int, ...] | None:
    """Return the parameter's shape with one copy per row of the images, or None where that fails.

    The function does the same with these copies, and each of them has a gradient of its own.

    Args:
        meeting: the function's.
        place: of the parameter.
        parameter: an argument that does not depend on the images.
        arguments: of the function.
        keywords: of the function.
    """
    if "out" in keywords or (meeting.places is not None and place not in meeting.places):
        return None
    if meeting.shaped_like is not None:
        shapes = [arguments[meeting.shaped_like].shape]
    else:
        others = (*arguments, *keywords.values())
        shapes = [t.shape for t in others if isinstance(t, Tensor) and t is not parameter]
    dimensions = max(map(len, shapes), default=0)
    if meeting.kind == "matmul" and (parameter.ndim < 2 or dimensions < 3):
        return None
    shape = (1,) * (dimensions - parameter.ndim) + tuple(parameter.shape)
    if len(shape) != dimensions or dimensions == 0 or shape[0] != 1:
        return None
    return max(s[0] for s in shapes if len(s) == dimensions), *shape[1:]


def repeated(parameter: Tensor, result: Tensor) -> bool:
    """Whether a result is one copy of a parameter per row, or the sum over its copies is known."""
    shape = (1,) * (result.ndim - parameter.ndim) + tuple(parameter.shape)
    fits = all(one in (1, many) for one, many in zip(shape, result.shape))
    return len(shape) == result.ndim > 0 and shape[0] == 1 and fits


MEETINGS: dict[Callable, Meeting] = (
    dict.fromkeys(_both("add", "add_", "sub", "sub_"), Meeting("add"))
    | dict.fromkeys(_both("mul", "mul_", "multiply"), Meeting("mul"))
    | dict.fromkeys(_both("div", "div_", "true_divide"), Meeting("div"))
    | dict.fromkeys(_both("addcmul", "addcmul_"), Meeting("addcmul"))
    | dict.fromkeys(_both("where", "maximum", "minimum", "pow", "lerp"), Meeting("elementwise"))
    | dict.fromkeys(_both("matmul"), Meeting("matmul"))
    | {
        F.scaled_dot_product_attention: Meeting("attention", (3, "attn_mask"), shaped_like=0),
        torch.rsub: Meeting("add"),
        torch.baddbmm: Meeting("add", (0,)),
    }
)
"""Functions whose result stays the same when a parameter is given once per image."""

REPEATS = frozenset(_both("expand", "expand_as", "broadcast_to", "repeat", "tile"))
"""Functions that copy a parameter for every image."""

# Functions that give a tensor's elements another shape or order.
RESHAPES: frozenset[Callable] = frozenset(
    [
        *(torch.Tensor.view, torch.Tensor.reshape, torch.reshape, torch.Tensor.view_as),
        *(torch.Tensor.unsqueeze, torch.unsqueeze, torch.Tensor.squeeze, torch.squeeze),
        *(torch.Tensor.flatten, torch.flatten, torch.Tensor.unflatten, torch.unflatten),
        *(torch.Tensor.permute, torch.permute, torch.Tensor.transpose, torch.transpose),
        *(torch.Tensor.t, torch.t, torch.Tensor.T.__get__, torch.Tensor.mT.__get__),
        *(torch.Tensor.movedim, torch.movedim, torch.Tensor.contiguous, torch.Tensor.__getitem__),
        *(torch.Tensor.clone, torch.clone),
    ]
)
