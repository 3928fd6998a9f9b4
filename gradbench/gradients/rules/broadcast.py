"""Bare parameters that are broadcast over the images, or copied for every image.

The function is given one copy of the parameter per row of the images instead. It computes the same,
and each copy has a gradient of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gradbench.gradients.layout import Layout
from gradbench.gradients.rules.base import Roles, Rule


class Broadcast(Rule):
    """A parameter of which every row of the images has a copy: its gradient is that of the copies.

    `shape` is that of a copy, with as many dimensions as the copies; the first stands for the rows.
    """

    reads_input = False

    def __init__(self, kind: str, shape: tuple[int, ...]):
        self.kind, self.shape = kind, shape

    def takes(self, layout: Layout) -> bool:
        """Whether the images are in the first dimension, or the only one."""
        return layout.dimension in (0, None)

    def small_gradients(self, roles: Roles, x: Tensor, delta: Tensor) -> dict[str, Tensor]:
        """Return the parameter's gradients, (B, *shape)."""
        if delta.ndim > len(self.shape):  # several rows per image
            delta = delta.sum(1)
        return {"weight": delta.sum_to_size(len(delta), *self.shape[1:])}


class Slope(Rule):
    """The slopes of a PReLU below zero, one or one per channel: the sum of min(x, 0) delta."""

    kind = "prelu"

    def __init__(self, slopes: int):
        self.slopes = slopes

    def small_gradients(self, roles: Roles, x: Tensor, delta: Tensor) -> dict[str, Tensor]:
        """Return the gradients of the slopes, (B, slopes)."""
        terms = (x.clamp_max(0) * delta).reshape(len(delta), delta.shape[1], -1).sum(2)
        return {"weight": terms.sum_to_size(len(terms), self.slopes)}


@dataclass(frozen=True)
class BroadcastFunction:
    """The places of parameters among the arguments of a function that broadcasts them."""

    kind: str
    places: tuple[int | str, ...] | None = None  # positions and keywords; None: all
    # position of the argument whose shape, but for the last dimension, is that of the result; None
    # where all arguments are broadcast with each other
    shaped_like: int | None = None

    def shape_of_copies(
        self,
        place: int | str,
        parameter: Tensor,
        arguments: Sequence[Any],
        keywords: Mapping[str, Any],
    ) -> tuple[int, ...] | None:
        """Return the shape of a parameter with one copy per row of the images, if it has one.

        `place` is the position or keyword of the parameter among the function's arguments.
        """
        if "out" in keywords or (self.places is not None and place not in self.places):
            return None
        if self.shaped_like is not None:
            shapes = [arguments[self.shaped_like].shape]
        else:
            others = (*arguments, *keywords.values())
            shapes = [t.shape for t in others if isinstance(t, Tensor) and t is not parameter]
        dimensions = max(map(len, shapes), default=0)
        # A product of matrices would read the dimension of the copies as one of its own.
        if self.kind == "matmul" and (parameter.ndim < 2 or dimensions < 3):
            return None
        shape = (1,) * (dimensions - parameter.ndim) + tuple(parameter.shape)
        if len(shape) != dimensions or dimensions == 0 or shape[0] != 1:
            return None
        return max(s[0] for s in shapes if len(s) == dimensions), *shape[1:]


def copied_per_row(parameter: Tensor, result: Tensor) -> bool:
    """Whether a result is one copy of a parameter per row, or the sum over its copies is known."""
    shape = (1,) * (result.ndim - parameter.ndim) + tuple(parameter.shape)
    fits = all(one in (1, many) for one, many in zip(shape, result.shape))
    return len(shape) == result.ndim > 0 and shape[0] == 1 and fits


def functions_named(*names: str) -> list[Callable]:
    """Return the functions and methods of these names: a function mode meets either."""
    pairs = [(where, name) for name in names for where in (torch, Tensor)]
    return [getattr(where, name) for where, name in pairs if hasattr(where, name)]


BROADCASTS: dict[Callable, BroadcastFunction] = {
    function: BroadcastFunction(kind)
    for kind, names in {
        "add": ("add", "add_", "sub", "sub_", "rsub"),
        "mul": ("mul", "mul_", "multiply"),
        "div": ("div", "div_", "true_divide"),
        "addcmul": ("addcmul", "addcmul_"),
        "elementwise": ("where", "maximum", "minimum", "pow", "lerp"),
        "matmul": ("matmul",),
    }.items()
    for function in functions_named(*names)
} | {
    F.scaled_dot_product_attention: BroadcastFunction("attention", (3, "attn_mask"), shaped_like=0),
    torch.baddbmm: BroadcastFunction("add", (0,)),
}
"""Functions whose result stays the same when a parameter is given once per image."""

COPIES = frozenset(functions_named("expand", "expand_as", "broadcast_to", "repeat", "tile"))
"""Functions that copy a parameter for every image."""
