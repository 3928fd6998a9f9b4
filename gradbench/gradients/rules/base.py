"""The base of rules: statistics of per-image gradients from a layer's input x and from delta.

delta is the gradient of sum_b J_b with respect to the layer's output; images come first in both.
Since J_b depends on image b alone, row b of a rule's result belongs to J_b.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from gradbench.gradients.costs import Work
from gradbench.gradients.layout import Layout

# Most elements that a step of a rule works on at once. On a CPU one block fits the cache of a core
# and never asks the system for fresh pages, which costs more than the arithmetic (measured on a
# batch normalisation of 16 MiB: 9 ms for the whole product, 2 ms in blocks); elsewhere only memory
# matters.
BLOCK_ELEMENTS = {"cpu": 2**18}
OTHER_BLOCK_ELEMENTS = 2**26

# Rows of a Gram matrix that are computed at once: it is symmetric, and what lies below is known.
STRIP = 64

Roles = Collection[str]


class Rule:
    """A rule that turns one call of a layer into statistics of its parameters' gradients.

    A parameter has a role, weight or bias. The per-image gradients of small parameters are
    materialised, (B, *shape), and reduced; `large` names the role, if any, for which that would
    cost too much memory, so that its norms are computed by one of several routes.
    """

    kind = ""
    large: str | None = None
    # Whether x may hold several rows per image between the first and the last dimensions.
    rows = False
    # Whether the rule reads x at all; if not, the layer's input need not be kept.
    reads_input = True

    def takes(self, layout: Layout) -> bool:
        """Whether the rule is exact where the images lie so."""
        return layout.plain or self.rows

    def small_gradients(self, roles: Roles, x: Tensor, delta: Tensor) -> dict[str, Tensor]:
        """Return the per-image gradients of small parameters, role -> (B, *shape)."""
        raise NotImplementedError

    def routes(
        self, x: torch.Size, delta: torch.Size, device: str, directions: int = 0
    ) -> dict[str, Work]:
        """Return the routes of the large parameter and the work of each for one image.

        By the shapes of input and output, and the number of directions; the kind of device decides
        how much is worked on at once.
        """
        return {}

    def measure(
        self, x: Tensor, delta: Tensor, route: str, directions: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return squared gradient norms of the large parameter, (B,), and inner products, (B, K).

        The products are those with directions (K, *shape), None without any. A route that brings
        the gradients about overrides this, to take both from them.
        """
        products = None if directions is None else self.products(x, delta, directions)
        return self.norms(x, delta, route), products

    def norms(self, x: Tensor, delta: Tensor, route: str) -> Tensor:
        """Return the squared gradient norms of the large parameter, (B,)."""
        raise NotImplementedError

    def large_gradients(self, x: Tensor, delta: Tensor, shape: torch.Size) -> Tensor:
        """Return the gradients of the large parameter, which has this shape, (B, *shape)."""
        raise NotImplementedError

    def products(self, x: Tensor, delta: Tensor, directions: Tensor) -> Tensor:
        """Return inner products of the large parameter's gradients with directions, (B, K).

        No gradient is brought about: the layer is applied to x with every direction as its weight.
        """
        raise NotImplementedError


def squared_rows(values: Tensor) -> Tensor:
    """Sum of squares of each row, (B, ...) -> (B,)."""
    return torch.linalg.vector_norm(values.reshape(len(values), -1), dim=1).square()


def reduced(gradients: Tensor, directions: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return squared norms (B,) of gradients (B, ...), and products (B, K) with (K, ...)."""
    rows = gradients.reshape(len(gradients), -1)
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))  # halves would overflow
    if directions is None:
        return squared_rows(rows), None
    # The other way round, a CPU takes up to twice as long.
    products = directions.reshape(len(directions), -1).to(rows) @ rows.T
    return squared_rows(rows), products.T


def joined(parts: Sequence[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor | None]:
    """Join norms and products of blocks of images."""
    norms, products = zip(*parts)
    return torch.cat(norms), None if products[0] is None else torch.cat(products)


def channels_last(values: Tensor) -> Tensor:
    """(B, C, *positions) -> (B, positions, C), a view where the memory is laid out so."""
    return values.flatten(2).transpose(1, 2) if values.ndim > 2 else values[:, None]


def gram_product(x: Tensor, delta: Tensor) -> Tensor:
    """Inner product of two Gram matrices, ||x_b^T delta_b||^2: (M, T, C), (M, T, P) -> (M,).

    Only the upper halves are computed, strip by strip.
    """
    total = x.new_zeros(len(x))
    for begin in range(0, x.shape[1], STRIP):
        strip = slice(begin, begin + STRIP)
        grams = torch.bmm(x[:, strip], x[:, begin:].transpose(1, 2))
        grams.mul_(torch.bmm(delta[:, strip], delta[:, begin:].transpose(1, 2)))
        diagonal = grams[:, :, : grams.shape[1]].sum((1, 2))
        total += 2 * grams.sum((1, 2)) - diagonal
    return total.clamp_min_(0)  # a square, though rounding may bring the sum below zero


def block_rows(elements: int, device: str) -> int:
    """Return how many rows of so many elements a block holds on a kind of device."""
    return max(1, BLOCK_ELEMENTS.get(device, OTHER_BLOCK_ELEMENTS) // max(1, elements))


def blocks(rows: int, elements: int, device: torch.device, read: int = 0) -> Iterator[slice]:
    """Return slices of rows, each of as many rows of so many elements as a block may hold.

    Where every block has to `read` so many elements anew, it holds no fewer itself.
    """
    step = max(block_rows(elements, device.type), read // max(1, elements))
    return (slice(i, min(i + step, rows)) for i in range(0, rows, step))
