"""Linear layers, with one or several rows per image, and embeddings."""

from __future__ import annotations

from math import ceil, prod

import torch
from torch import Tensor
from torch.nn import functional as F

from gradbench.gradients.costs import Work
from gradbench.gradients.rules.base import (
    STRIP,
    Roles,
    Rule,
    block_rows,
    blocks,
    gram_product,
    joined,
    reduced,
    squared_rows,
)


class Linear(Rule):
    """y_t = W x_t + b: the weight's gradient is sum over the image's rows t of delta_t x_t^T.

    Routes: *outer*, for one row per image, is ||x||^2 ||delta||^2; *direct* computes the product of
    T rows, T C P multiplications, and reduces it at once; *gram* is the inner product of the Gram
    matrices of both factors, T^2 (C + P). A `transposed` weight is (C, P), as in `x @ weight`.
    """

    kind = "linear"
    large = "weight"
    rows = True

    def __init__(self, transposed: bool = False):
        self.transposed = transposed

    def small_gradients(self, roles: Roles, x: Tensor, delta: Tensor) -> dict[str, Tensor]:
        """Return the bias's gradient: the sum of delta over rows."""
        return {"bias": _rows(delta).sum(1)}

    def routes(
        self, x: torch.Size, delta: torch.Size, device: str, directions: int = 0
    ) -> dict[str, Work]:
        """Return the work of outer, or of direct and gram."""
        rows, inputs, outputs = prod(x[1:-1]), x[-1], delta[-1]
        if rows == 1:  # nothing is cheaper, so there is no choice
            return {"outer": Work(elements=inputs + outputs)}
        return {
            "direct": Work(
                rows * inputs * outputs,
                (1 + directions) * inputs * outputs,
                5 / block_rows(inputs * outputs, device),
            ),
            "gram": Work(
                rows * (rows + STRIP) // 2 * (inputs + outputs)
                + directions * rows * inputs * outputs,
                rows * (rows + STRIP),
                9 * ceil(rows / STRIP) / block_rows(2 * rows**2, device),
            ),
        }

    def measure(
        self, x: Tensor, delta: Tensor, route: str, directions: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return squared norms and products; *direct* takes both from the gradients."""
        if route != "direct":
            return super().measure(x, delta, route, directions)
        x, delta = _rows(x), _rows(delta)
        if directions is not None and self.transposed:
            directions = directions.transpose(1, 2)
        found = [
            reduced(torch.bmm(delta[block].transpose(1, 2), x[block]), directions)
            for block in blocks(len(x), x.shape[2] * delta.shape[2], x.device)
        ]
        return joined(found)

    def norms(self, x: Tensor, delta: Tensor, route: str) -> Tensor:
        """Return the squared norms of the weight's gradients, x (B, ..., C), delta (B, ..., P)."""
        if route == "outer":
            return squared_rows(x) * squared_rows(delta)
        x, delta = _rows(x), _rows(delta)
        norms = x.new_empty(len(x))
        for block in blocks(len(x), 2 * x.shape[1] ** 2, x.device):
            norms[block] = gram_product(x[block], delta[block])
        return norms

    def large_gradients(self, x: Tensor, delta: Tensor, shape: torch.Size) -> Tensor:
        """Return the weight's gradients, (B, P, C), or (B, C, P) where it is read transposed."""
        gradients = torch.bmm(_rows(delta).transpose(1, 2), _rows(x))
        return gradients.transpose(1, 2) if self.transposed else gradients

    def products(self, x: Tensor, delta: Tensor, directions: Tensor) -> Tensor:
        """Return <dJ/dW, V_k> = sum over rows of (V_k x_t) . delta_t."""
        directions = directions.transpose(1, 2) if self.transposed else directions
        x, delta = _rows(x), _rows(delta)
        found = delta.new_empty(len(x), len(directions))
        stacked = directions.flatten(0, 1)
        for block in blocks(len(x), delta.shape[1] * len(stacked), x.device, stacked.numel()):
            through = F.linear(x[block], stacked).unflatten(-1, directions.shape[:2])
            found[block] = (through * delta[block][:, :, None]).sum((1, 3))
        return found


class Embedding(Rule):
    """Rows of a table picked by numbers: the gradient of row i is the sum of delta_t with id_t = i.

    Its squared norm is the sum over pairs t, t' with the same number of delta_t . delta_t'.
    `padding` is the number of the row that has no gradient, if any.
    """

    kind = "embedding"
    large = "weight"
    rows = True

    def __init__(self, padding: int | None):
        self.padding = padding

    def routes(
        self, x: torch.Size, delta: torch.Size, device: str, directions: int = 0
    ) -> dict[str, Work]:
        """Return the work of the one route, gram."""
        rows = prod(x[1:])
        return {"gram": Work(rows**2 * delta[-1], rows**2)}

    def norms(self, x: Tensor, delta: Tensor, route: str) -> Tensor:
        """Return the squared norms of the table's gradients, x (B, ...), delta (B, ..., C)."""
        x, delta = x.reshape(len(x), -1), _rows(self._without_padding(x, delta))
        norms = delta.new_empty(len(x))
        for block in blocks(len(x), 2 * x.shape[1] ** 2, x.device):
            same = x[block, :, None] == x[block, None, :]
            grams = torch.bmm(delta[block], delta[block].transpose(1, 2))
            # A square, though rounding may bring the sum below zero.
            norms[block] = (grams * same).flatten(1).sum(1).clamp_min_(0)
        return norms

    def large_gradients(self, x: Tensor, delta: Tensor, shape: torch.Size) -> Tensor:
        """Return the table's gradients, (B, *shape)."""
        delta = _rows(self._without_padding(x, delta)).flatten(0, 1)
        first = shape[0] * torch.arange(len(x), device=x.device)  # the tables stand in one
        places = (x.reshape(len(x), -1) + first[:, None]).flatten()
        rows = delta.new_zeros(len(x) * shape[0], shape[1])
        return rows.index_add_(0, places, delta).view(-1, *shape)

    def products(self, x: Tensor, delta: Tensor, directions: Tensor) -> Tensor:
        """Return <dJ/dW, V_k> = sum over t of V_k[id_t] . delta_t."""
        delta = self._without_padding(x, delta)
        return torch.stack([(v[x] * delta).flatten(1).sum(1) for v in directions], dim=1)

    def _without_padding(self, x: Tensor, delta: Tensor) -> Tensor:
        return delta if self.padding is None else delta * (x != self.padding)[..., None]


def _rows(values: Tensor) -> Tensor:
    """(B, ..., C) -> (B, T, C)."""
    return values.reshape(values.shape[0], -1, values.shape[-1])
