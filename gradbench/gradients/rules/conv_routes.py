"""Convolutions of one to three dimensions, and transposed ones: the weight's per-image gradient.

dW_b[p, c, o] = sum over output positions t of delta_b[p, t] x_b[c, t * stride + o * dilation].

Three exact routes, chosen by a static model of their cost:

- *direct* forms dW_b and reduces it at once. The k neighbours along the last dimension are laid
  side by side (k copies of the image, not k^2), the offsets of the other dimensions are slices, and
  each is one product of delta (P, T) with (T, k C). It wins for kernels of one element, and where
  there are many positions and few channels.
- *gram* uses ||dW_b||^2 = sum over t, t' of G_x(t, t') G_delta(t, t'), where G_x, the Gram matrix
  of the unfolded input, is the sum of shifted windows of the Gram matrix of the raw pixels, taken
  one dimension after the other. It wins where there are few positions and many channels.
- *native* lets the device's own convolution form dW_b: image by image on a CPU, elsewhere with
  images standing as groups. It wins for large layers with many positions, and depthwise ones.

Tried and left out (CIFAR ResNet-18's first stage, one thread): slices of equal row pitch without
any copy (nine thin products, 1.05 to 1.3 times as slow as direct), the whole unfolded input (1.7
times), blocks larger than a cache (1.1 to 1.3 times), images as groups on a CPU (1.9 times native);
in the second stage, windows of all k^2 offsets at once (1.2 to 1.4 times gram).

A transposed convolution is the same with the roles of x and delta exchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from gradbench.gradients.rules.base import blocks, channels_last, gram_product, squared_rows


@dataclass(frozen=True)
class Geometry:
    """How a convolution moves over its input; one entry per dimension.

    Args:
        kernel: sizes of the kernel.
        stride: steps between neighbouring outputs.
        padding: zeros added before and after.
        dilation: steps between neighbouring kernel elements.
        groups: number of groups of channels.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1

    @property
    def pointwise(self) -> bool:
        """Whether every output reads one position and nothing is padded."""
        return prod(self.kernel) == 1 and not any(map(any, self.padding))

    def sparse(self, x: Tensor) -> tuple[Tensor, Geometry]:
        """Return only the positions that a pointwise convolution reads, and its new geometry."""
        if not self.pointwise:
            return x, self
        ones = (1,) * len(self.kernel)
        x = x[(..., *(slice(None, None, step) for step in self.stride))]
        return x, Geometry(ones, ones, self.padding, ones, self.groups)


def direct(x: Tensor, delta: Tensor, geometry: Geometry) -> Tensor:
    """Form the gradient in a block of images and reduce it: (M, C, ...), (M, P, ...) -> (M,)."""
    last, *_ = geometry.kernel[::-1]
    found = x.new_empty(len(x))
    for block in blocks(len(x), x[0].numel() * last, x.device):
        columns = _columns(x[block], geometry, delta.shape[-1])
        left = channels_last(delta[block]).transpose(1, 2)
        total = None
        for offset in product(*map(range, geometry.kernel[:-1])):
            rows = _rows(offset, geometry, delta.shape[2:])
            part = squared_rows(torch.bmm(left, columns[(slice(None), *rows)].flatten(1, -2)))
            total = part if total is None else total.add_(part)
        found[block] = total
    return found


def depthwise(x: Tensor, delta: Tensor, geometry: Geometry) -> Tensor:
    """Form the gradient where every channel is a group, offset by offset: (M, C, ...) each -> (M,).

    For small images the device's convolution costs ten times as much (40 channels of 8x8 pixels,
    5x5: 4 times; 576 of 2x2: 25 times), one product of matrices per channel five times.
    """
    found = x.new_empty(len(x))
    for block in blocks(len(x), x[0].numel(), x.device):
        a, d = _padded(x[block].movedim(1, -1), geometry, tail=1), delta[block].movedim(1, -1)
        total = x.new_zeros(len(a))
        for offset in product(*map(range, geometry.kernel)):
            part = a[(slice(None), *_rows(offset, geometry, d.shape[1:-1]))] * d
            total += squared_rows(part.sum(tuple(range(1, part.ndim - 1))))
        found[block] = total
    return found


def _rows(offset: Sequence[int], geometry: Geometry, lengths: Sequence[int]) -> tuple[slice, ...]:
    """Return the pixels that the first dimensions of an offset read for outputs of some lengths."""
    return tuple(
        slice(o * d, o * d + s * (n - 1) + 1, s)
        for o, d, s, n in zip(offset, geometry.dilation, geometry.stride, lengths)
    )


def _columns(x: Tensor, geometry: Geometry, length: int) -> Tensor:
    """Pad x and lay the neighbours along its last dimension side by side: (M, ..., length, k C)."""
    x = _padded(x.movedim(1, -1), geometry, tail=1)
    kernel, step, dilation = geometry.kernel[-1], geometry.stride[-1], geometry.dilation[-1]
    spans = (
        slice(o * dilation, o * dilation + step * (length - 1) + 1, step) for o in range(kernel)
    )
    neighbours = [x[..., span, :] for span in spans]
    return neighbours[0] if kernel == 1 else torch.cat(neighbours, -1)


def _padded(x: Tensor, geometry: Geometry, tail: int = 0) -> Tensor:
    """Add the zeros around the positions of x; `tail` dimensions follow them."""
    if not any(map(any, geometry.padding)):
        return x
    return F.pad(x, [0, 0] * tail + [n for pair in geometry.padding[::-1] for n in pair])


def gram(x: Tensor, delta: Tensor, geometry: Geometry) -> Tensor:
    """Inner product of two Gram matrices over positions: (M, C, ...), (M, P, ...) -> (M,)."""
    sizes, positions = x.shape[2:], delta.shape[2:]
    found = x.new_empty(len(x))
    for block in blocks(len(x), prod(sizes) ** 2 + prod(positions) ** 2, x.device):
        a, d = channels_last(x[block]), channels_last(delta[block])
        if geometry.pointwise:
            found[block] = gram_product(a, d)
            continue
        grams = torch.bmm(a, a.transpose(1, 2)).view(-1, *sizes, *sizes)
        for dimension, length in enumerate(positions):
            grams = _windows(grams, dimension, length, geometry)
        outputs = torch.bmm(d, d.transpose(1, 2)).flatten(1)
        found[block] = outputs.mul_(grams.flatten(1)).sum(1).clamp_min_(0)
    return found


def _windows(grams: Tensor, dimension: int, length: int, geometry: Geometry) -> Tensor:
    """Sum the shifted windows of a Gram matrix along one dimension of its positions.

    Args:
        grams: (M, *sizes, *sizes).
        dimension: along which windows move, in both factors at once.
        length: number of output positions along it.
        geometry: of the convolution.
    """
    axes = (1 + dimension, 1 + dimension + len(geometry.kernel))
    size, step = grams.shape[axes[0]], geometry.stride[dimension]
    spans = []  # outputs that read a pixel at an offset, and the first of those pixels
    for o in range(geometry.kernel[dimension]):
        shift = o * geometry.dilation[dimension] - geometry.padding[dimension][0]
        first = max(0, -(shift // step))
        end = min(length, (size - 1 - shift) // step + 1)
        if end > first:
            spans.append((first, end, first * step + shift))

    def window(values: Tensor, start: int, count: int, step: int) -> Tensor:
        index = [slice(None)] * values.ndim
        for axis in axes:
            index[axis] = slice(start, start + step * (count - 1) + 1, step)
        return values[tuple(index)]

    whole = next((span for span in spans if span[1] - span[0] == length), None)
    if whole is None:
        shape = [length if axis in axes else n for axis, n in enumerate(grams.shape)]
        total = grams.new_zeros(shape)
    else:  # one offset, usually the middle one, has no border
        spans.remove(whole)
        total = window(grams, whole[2], length, step).clone()
    for first, end, start in spans:
        window(total, first, end - first, 1).add_(window(grams, start, end - first, step))
    return total


def native(x: Tensor, delta: Tensor, geometry: Geometry, images: int) -> Tensor:
    """Let the device's convolution form the gradients of some images at a time, as groups."""
    found = []
    for gradients in weights(x, delta, geometry, images):
        # Reduced as it lies: bringing it into another order would take as long as the arithmetic.
        norms = torch.linalg.vector_norm(gradients, dim=tuple(range(1, gradients.ndim)))
        found.append(norms.square_().view(-1, delta.shape[1]).sum(1))
    return torch.cat(found)


def weights(x: Tensor, delta: Tensor, geometry: Geometry, images: int) -> Iterator[Tensor]:
    """Yield the gradients of some images at a time, (images P, C / groups, *kernel)."""
    padding = [before for before, _ in geometry.padding]
    if any(before != after for before, after in geometry.padding):
        x, padding = _padded(x, geometry), [0] * len(padding)
    # Pixels that no output reads (a transposed layer's output padding) confuse the device.
    for axis, (n, k, d, step, pad) in enumerate(
        zip(delta.shape[2:], geometry.kernel, geometry.dilation, geometry.stride, padding), 2
    ):
        read = (n - 1) * step + (k - 1) * d + 1 - pad
        x = x.narrow(axis, 0, read) if x.shape[axis] > read + step - 1 - pad else x
    shape = (delta.shape[1], x.shape[1] // geometry.groups, *geometry.kernel)
    for a, d in zip(x.split(images), delta.split(images)):
        weight = x.new_empty(1).expand(len(a) * shape[0], *shape[1:])
        if len(a) > 1:  # one image keeps its layout in memory, which another view of it may lose
            a, d = (t.reshape(1, -1, *t.shape[2:]) for t in (a, d))
        _, gradients, _ = torch.ops.aten.convolution_backward(
            *(d, a, weight, None),
            *(geometry.stride, padding, geometry.dilation, False, [0] * len(padding)),
            *(a.shape[1] // x.shape[1] * geometry.groups, [False, True, False]),
        )
        yield gradients
