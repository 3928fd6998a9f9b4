"""Squared norms of the per-image weight gradients of a convolution, without unfolding its input.

dW_b[p, c, i, j] = sum over output positions t of delta_b[p, t] x_b[c, t shifted by (i, j)].

Two exact routes, chosen by a static model of their cost:

- *direct* forms dW_b one kernel offset at a time and reduces it at once. Input and delta are laid
  out with the same row pitch, so that every offset is a plain shifted slice, without a copy.
- *Gram* uses ||dW_b||^2 = sum over t, t' of G_x(t, t') G_delta(t, t'), where G_x, the Gram matrix
  of the unfolded input, is the sum of shifted windows of the Gram matrix of the raw pixels. It
  wins where there are few positions and many channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

import torch
from torch import Tensor
from torch.nn import functional as F

from gradbench.gradients.rules import squared_rows

# One element of a window sum is bound by memory; it costs as much as this many multiplications
# of a matrix product (CPU, float32).
WINDOW_COST = 12
# Most elements of an operand or a product that the direct route works on at once: what fits a
# processor's cache (measured: a fifth faster than whole batches), more where batches are split for
# memory alone.
BLOCK_ELEMENTS = {"cpu": 2**18}
OTHER_BLOCK_ELEMENTS = 2**26


@dataclass(frozen=True)
class Conv2d:
    """Geometry of a two-dimensional convolution.

    Args:
        kernel: height and width of the kernel.
        stride: rows and columns between neighbouring outputs.
        padding: zeros added at the top, bottom, left and right.
        dilation: rows and columns between neighbouring kernel elements.
        groups: number of groups of channels.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @classmethod
    def of_call(
        cls,
        weight: Tensor,
        stride: int | tuple[int, ...],
        padding: str | int | tuple[int, ...],
        dilation: int | tuple[int, ...],
        groups: int,
    ) -> Conv2d:
        """Return the geometry of a call of `torch.conv2d` with these arguments."""
        kernel = tuple(weight.shape[2:])
        dilation = _pair(dilation)
        if padding == "same":  # the odd zero goes to the bottom and the right, as in PyTorch
            total = [d * (k - 1) for d, k in zip(dilation, kernel)]
            sides = tuple(n for t in total for n in (t // 2, t - t // 2))
        elif padding == "valid":
            sides = (0, 0, 0, 0)
        else:
            sides = tuple(n for n in _pair(padding) for _ in range(2))
        return cls(kernel, _pair(stride), sides, dilation, groups)

    def route(self, x: tuple[int, ...], delta: tuple[int, ...]) -> str:
        """Return the cheaper route, 'direct' or 'gram', for these shapes of input and delta."""
        pixels, positions = prod(x[2:]), prod(delta[2:])
        if prod(self.kernel) == 1 and not any(self.padding):
            pixels = positions
        inputs, outputs = x[1] // self.groups, delta[1] // self.groups
        direct = positions * inputs * outputs * prod(self.kernel)
        gram = pixels**2 * inputs + positions**2 * (outputs + WINDOW_COST * prod(self.kernel))
        return "gram" if gram < direct else "direct"


def conv2d_weight_norm(x: Tensor, delta: Tensor, conv: Conv2d, route: str | None = None) -> Tensor:
    """Return the squared norm of each image's weight gradient, shape (B,).

    Args:
        x: input of the convolution, (B, C, H, W).
        delta: gradient with respect to its output, (B, P, H', W').
        conv: geometry.
        route: direct or gram; None takes the cheaper one.
    """
    images = x.shape[0]
    route = route or conv.route(x.shape, delta.shape)
    if prod(conv.kernel) == 1 and not any(conv.padding):  # only the pixels that are read
        x = x[:, :, :: conv.stride[0], :: conv.stride[1]]
        conv = Conv2d(conv.kernel, groups=conv.groups)
    x = x.reshape(images * conv.groups, -1, *x.shape[2:])
    delta = delta.reshape(images * conv.groups, -1, *delta.shape[2:])
    norms = (_gram if route == "gram" else _direct)(x, delta, conv)
    return norms.view(images, conv.groups).sum(1)


def _direct(x: Tensor, delta: Tensor, conv: Conv2d) -> Tensor:
    """Product of delta with every shifted slice, each reduced at once: (M, C, H, W) -> (M,)."""
    elements = BLOCK_ELEMENTS.get(x.device.type, OTHER_BLOCK_ELEMENTS)
    block = max(1, elements // max(x.shape[1] * delta.shape[1], x[0].numel(), delta[0].numel()))
    pieces = zip(x.split(block), delta.split(block))
    return torch.cat([_direct_block(x, delta, conv) for x, delta in pieces])


def _direct_block(x: Tensor, delta: Tensor, conv: Conv2d) -> Tensor:
    (up, left), (tall, wide) = conv.stride, delta.shape[2:]
    (rows, cols) = conv.kernel
    (down, right) = conv.dilation
    # Pixels (up * r + a, left * c + b) make up phase (a, b), in which the stride is one.
    height = ceil(((rows - 1) * down + up * (tall - 1) + 1) / up)
    pitch = ceil(((cols - 1) * right + left * (wide - 1) + 1) / left)
    top, _, before, _ = conv.padding
    missing = (up * height - top - x.shape[2], left * pitch - before - x.shape[3])
    if top or before or any(missing):
        x = F.pad(x, (before, missing[1], top, missing[0]))
    x = x.reshape(*x.shape[:2], height, up, pitch, left).permute(3, 5, 0, 1, 2, 4).flatten(4)
    if pitch > wide:  # zeros where a slice runs over the end of a row into the next one
        delta = F.pad(delta, (0, pitch - wide))
    length = (tall - 1) * pitch + wide
    delta = delta.reshape(*delta.shape[:2], -1)[:, :, :length]
    total = x.new_zeros(x.shape[2])
    for i in range(rows):
        for j in range(cols):
            (row, a), (col, b) = divmod(i * down, up), divmod(j * right, left)
            shift = row * pitch + col
            part = x[a, b, :, :, shift : shift + length]
            total += squared_rows(torch.bmm(delta, part.transpose(1, 2)))
    return total


def _gram(x: Tensor, delta: Tensor, conv: Conv2d) -> Tensor:
    """Inner product of two Gram matrices over positions: (M, C, H, W) -> (M,)."""
    (up, left), (tall, wide) = conv.stride, delta.shape[2:]
    height, width = x.shape[2:]
    x, delta = x.flatten(2), delta.flatten(2)
    pixels = torch.bmm(x.transpose(1, 2), x).view(-1, height, width, height, width)
    top, bottom, before, after = conv.padding
    if any(conv.padding):  # the border is zero: no products needed there
        pixels = F.pad(pixels, 2 * (before, after, top, bottom))
    unfolded = None
    for i in range(conv.kernel[0]):
        for j in range(conv.kernel[1]):
            row, col = i * conv.dilation[0], j * conv.dilation[1]
            rows = slice(row, row + up * (tall - 1) + 1, up)
            cols = slice(col, col + left * (wide - 1) + 1, left)
            window = pixels[:, rows, cols, rows, cols]
            unfolded = window.clone() if unfolded is None else unfolded.add_(window)
    outputs = torch.bmm(delta.transpose(1, 2), delta).view_as(unfolded)
    return (unfolded * outputs).flatten(1).sum(1).clamp_min(0)


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value) * (2 // len(value))
