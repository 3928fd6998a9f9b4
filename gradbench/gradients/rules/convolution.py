"""Convolutions of one to three dimensions, and transposed ones.

dW_b[p, c, o] = sum over output positions t of delta_b[p, t] x_b[c, t * stride + o * dilation].

Three exact routes, chosen by a static model of their cost:

- *direct* computes dW_b and reduces it at once. The k neighbours along the last dimension are laid
  side by side (k copies of the image, not k^2), the offsets of the other dimensions are slices, and
  each is one product of delta (P, T) with (T, k C). It wins for kernels of one element, and where
  there are many positions and few channels.
- *gram* uses ||dW_b||^2 = sum over t, t' of G_x(t, t') G_delta(t, t'), where G_x, the Gram matrix
  of the unfolded input, is the sum of shifted windows of the Gram matrix of the raw pixels, taken
  one dimension after the other. It wins where there are few positions and many channels.
- *native* lets the device's own convolution compute dW_b: image by image on a CPU, elsewhere with
  images standing as groups. It wins for large layers with many positions, and depthwise ones.

Tried and left out (CIFAR ResNet-18's first stage, one thread): slices of equal row pitch without
any copy (nine thin products, 1.05 to 1.3 times as slow as direct), the whole unfolded input (1.7
times), blocks larger than a cache (1.1 to 1.3 times), images as groups on a CPU (1.9 times native);
in the second stage, windows of all k^2 offsets at once (1.2 to 1.4 times gram).

A transposed convolution is the same with the roles of x and delta exchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
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
    channels_last,
    gram_product,
    joined,
    reduced,
    squared_rows,
)


@dataclass(frozen=True)
class Geometry:
    """The geometry of a convolution: one entry per dimension, zeros before and after."""

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


class Convolution(Rule):
    """Weight and bias of a convolution.

    The geometry of a transposed one, where the roles of x and delta are exchanged, is that of its
    adjoint. `apply` is the layer without bias as a function of (x, weight).
    """

    large = "weight"

    def __init__(
        self,
        geometry: Geometry,
        apply: Callable[[Tensor, Tensor], Tensor],
        transposed: bool = False,
    ):
        self.geometry, self.apply, self.transposed = geometry, apply, transposed
        self.kind = f"conv{'_transpose' * transposed}{len(geometry.kernel)}d"

    def small_gradients(self, roles: Roles, x: Tensor, delta: Tensor) -> dict[str, Tensor]:
        """Return the bias's gradient: the sum of delta over positions."""
        return {"bias": delta.flatten(2).sum(2)}

    def routes(
        self, x: torch.Size, delta: torch.Size, device: str, directions: int = 0
    ) -> dict[str, Work]:
        """Return the work of direct, gram and native.

        Where the gradient is brought about, every direction is read once, which takes longer than
        to multiply them; elsewhere products are the layer's own, at every position.
        """
        if self.transposed:
            x, delta = delta, x
        g, kernel, last = self.geometry, prod(self.geometry.kernel), self.geometry.kernel[-1]
        pixels, positions = prod(x[2:]), prod(delta[2:])
        if g.pointwise:
            pixels = positions
        inputs, outputs = x[1] // g.groups, delta[1] // g.groups
        multiplications = positions * (kernel // last) * g.groups  # of products of (P, T), (T, k C)
        multiplications *= max(last * inputs, 32) * max(outputs, 16)
        copied = 0 if g.pointwise else x[1] * positions * (last if max(g.stride) == 1 else kernel)
        squares = pixels**2 + positions**2
        added = 0 if g.pointwise else sum(g.kernel) * positions**2
        calls = g.groups * (4 + 4 * kernel // last)
        # Of a pointwise layer's Gram matrices the upper half is computed, in strips.
        half = (1 + min(1, STRIP / positions)) / 2 if g.pointwise else 1
        steps = 9 * ceil(positions / STRIP) if g.pointwise else 8 + 3 * sum(g.kernel)
        along = directions * outputs * x[1] * kernel
        through = 0.6 * along * positions  # measured: faster than the products of matrices
        # Small groups leave lanes of the device's kernels idle; depthwise layers have their own.
        lanes = inputs * outputs
        if g.groups > 1:
            lanes = 10 if lanes == 1 else max(inputs, 16) * max(outputs, 16)
        # Depthwise ones are fast for kernels of 3, and start anew for every element of larger ones.
        starts = 7000 * kernel * x[1] if self._depthwise(x, delta) and max(g.kernel) > 3 else 0
        direct = Work(
            multiplications + (through if g.groups > 1 else 0),
            copied + outputs * x[1] * kernel + (0 if g.groups > 1 else along),
            calls / block_rows(inputs * pixels * last, device),
        )
        if self._depthwise(x, delta):
            work = 1.3 * x[1] * positions * kernel
            direct = Work(through, work, kernel / block_rows(x[1] * pixels, device))
        return {
            "direct": direct,
            "gram": Work(
                half * (pixels**2 * x[1] + positions**2 * delta[1]) + through,
                g.groups * (2 * half * squares + added),
                g.groups * steps / block_rows(squares, device),
            ),
            "native": Work(
                positions * kernel * g.groups * lanes + starts,
                x[1] * pixels + delta[1] * positions + outputs * x[1] * kernel + along,
                1 / self._images(x, delta, device),
            ),
        }

    def _images(self, x: torch.Size, delta: torch.Size, device: str) -> int:
        """Return the images that the native route gives to the device at once."""
        weight = delta[1] * x[1] // self.geometry.groups * prod(self.geometry.kernel)
        return 1 if device == "cpu" else block_rows(weight, device)

    def _depthwise(self, x: torch.Size, delta: torch.Size) -> bool:
        return self.geometry.groups == x[1] == delta[1] > 1

    def measure(
        self, x: Tensor, delta: Tensor, route: str, directions: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return squared norms and products; *native* and *direct* take both from the gradients."""
        whole = route == "native" or (route == "direct" and self.geometry.groups == 1)
        if directions is None or not whole:
            return super().measure(x, delta, route, directions)
        if self.transposed:
            x, delta = delta, x
        x, geometry = self.geometry.sparse(x)
        if route == "direct":
            return direct(x, delta, geometry, directions)
        images = self._images(x.shape, delta.shape, x.device.type)
        gradients = weight_gradients(x, delta, geometry, images)
        return joined(
            [reduced(g.unflatten(0, (-1, delta.shape[1])), directions) for g in gradients]
        )

    def norms(self, x: Tensor, delta: Tensor, route: str) -> Tensor:
        """Return the squared norms of the weight's gradients, x (B, C, ...), delta (B, P, ...)."""
        if self.transposed:
            x, delta = delta, x
        x, geometry = self.geometry.sparse(x)
        if route == "native":
            images = self._images(x.shape, delta.shape, x.device.type)
            return native(x, delta, geometry, images)
        groups = geometry.groups
        if route == "direct" and groups == 1:
            return direct(x, delta, geometry)[0]
        if route == "direct" and self._depthwise(x.shape, delta.shape):
            return depthwise(x, delta, geometry)
        if groups > 1:  # each group is a convolution of its own: fold them into the images
            x, delta = (t.reshape(len(t) * groups, -1, *t.shape[2:]) for t in (x, delta))
        norms = gram(x, delta, geometry) if route == "gram" else direct(x, delta, geometry)[0]
        return norms.view(-1, groups).sum(1)

    def large_gradients(self, x: Tensor, delta: Tensor, shape: torch.Size) -> Tensor:
        """Return the weight's gradients, (B, *shape)."""
        if self.transposed:
            x, delta = delta, x
        x, geometry = self.geometry.sparse(x)
        images = self._images(x.shape, delta.shape, x.device.type)
        gradients = list(weight_gradients(x, delta, geometry, images))
        return (torch.cat(gradients) if len(gradients) > 1 else gradients[0]).reshape(-1, *shape)

    def products(self, x: Tensor, delta: Tensor, directions: Tensor) -> Tensor:
        """Return <dJ/dW, V_k>: the layer applied to x with weight V_k, times delta, summed.

        All V_k are one weight, whose output channels stand as (groups, K, channels of a group).
        """
        groups, count = self.geometry.groups, len(directions)
        if self.transposed:  # (K, inputs, outputs of a group, *kernel)
            weight = directions.movedim(0, 1).flatten(1, 2)
        else:  # (K, outputs, inputs of a group, *kernel)
            weight = directions.unflatten(1, (groups, -1)).movedim(0, 1).flatten(0, 2)
        # Weights of another layout would be brought into that of x every time.
        x, found = x.contiguous(), delta.new_empty(len(x), count)
        for block in blocks(len(x), count * delta[0].numel(), x.device, weight.numel()):
            through = self.apply(x[block], weight).unflatten(1, (groups, count, -1)).flatten(3)
            d = delta[block].unflatten(1, (groups, 1, -1)).flatten(3)
            found[block] = (through * d).sum((1, 3))
        return found


def direct(
    x: Tensor, delta: Tensor, geometry: Geometry, directions: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Compute and reduce the gradients block by block: (M, C, ...), (M, P, ...) -> (M,).

    With directions (K, P, C, *kernel) also their inner products, (M, K).
    """
    last = geometry.kernel[-1]
    norms = x.new_empty(len(x))
    products, along = None, {}
    if directions is not None:
        products = x.new_zeros(len(x), len(directions))
        along = {
            offset: directions[(slice(None), slice(None), slice(None), *offset)]
            .transpose(2, 3)
            .flatten(1)
            for offset in product(*map(range, geometry.kernel[:-1]))
        }
    for block in blocks(len(x), x[0].numel() * last, x.device):
        columns = _columns(x[block], geometry, delta.shape[-1])
        left = channels_last(delta[block]).transpose(1, 2)
        total = None
        for offset in product(*map(range, geometry.kernel[:-1])):
            rows = _rows(offset, geometry, delta.shape[2:])
            part = torch.bmm(left, columns[(slice(None), *rows)].flatten(1, -2))
            if products is not None:
                products[block] += (along[offset] @ part.flatten(1).T).T
            part = squared_rows(part)
            total = part if total is None else total.add_(part)
        norms[block] = total
    return norms, products


def depthwise(x: Tensor, delta: Tensor, geometry: Geometry) -> Tensor:
    """Compute the gradient of a depthwise layer offset by offset: (M, C, ...) each -> (M,).

    For small images the device's convolution costs ten times as much (40 channels of 8x8 pixels,
    5x5: 4 times; 576 of 2x2: 25 times), one product of matrices per channel five times.
    """
    norms = x.new_empty(len(x))
    for block in blocks(len(x), x[0].numel(), x.device):
        a, d = _padded(x[block].movedim(1, -1), geometry, tail=1), delta[block].movedim(1, -1)
        total = x.new_zeros(len(a))
        for offset in product(*map(range, geometry.kernel)):
            part = a[(slice(None), *_rows(offset, geometry, d.shape[1:-1]))] * d
            total += squared_rows(part.sum(tuple(range(1, part.ndim - 1))))
        norms[block] = total
    return norms


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
    begins = (o * dilation for o in range(kernel))
    neighbours = [x[..., begin : begin + step * (length - 1) + 1 : step, :] for begin in begins]
    return neighbours[0] if kernel == 1 else torch.cat(neighbours, -1)


def _padded(x: Tensor, geometry: Geometry, tail: int = 0) -> Tensor:
    """Add the zeros around the positions of x; `tail` dimensions follow them."""
    if not any(map(any, geometry.padding)):
        return x
    return F.pad(x, [0, 0] * tail + [n for pair in geometry.padding[::-1] for n in pair])


def gram(x: Tensor, delta: Tensor, geometry: Geometry) -> Tensor:
    """Inner product of two Gram matrices over positions: (M, C, ...), (M, P, ...) -> (M,)."""
    sizes, positions = x.shape[2:], delta.shape[2:]
    norms = x.new_empty(len(x))
    for block in blocks(len(x), prod(sizes) ** 2 + prod(positions) ** 2, x.device):
        a, d = channels_last(x[block]), channels_last(delta[block])
        if geometry.pointwise:
            norms[block] = gram_product(a, d)
            continue
        grams = torch.bmm(a, a.transpose(1, 2)).view(-1, *sizes, *sizes)
        for dimension, length in enumerate(positions):
            grams = _windows(grams, dimension, length, geometry)
        outputs = torch.bmm(d, d.transpose(1, 2)).flatten(1)
        # A square, though rounding may bring the sum below zero.
        norms[block] = outputs.mul_(grams.flatten(1)).sum(1).clamp_min_(0)
    return norms


def _windows(grams: Tensor, dimension: int, length: int, geometry: Geometry) -> Tensor:
    """Sum the shifted windows of a Gram matrix, (M, *sizes, *sizes), along one dimension.

    The windows move in both factors at once, over `length` output positions.
    """
    axes = (1 + dimension, 1 + dimension + len(geometry.kernel))
    size, step = grams.shape[axes[0]], geometry.stride[dimension]
    spans = []  # per offset: the outputs that read a pixel there, and the first of those pixels
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
    """Let the device's convolution compute the gradients of some images at a time, as groups."""
    values = []
    for gradients in weight_gradients(x, delta, geometry, images):
        # Reduced as it lies: bringing it into another order would take as long as the arithmetic.
        norms = torch.linalg.vector_norm(gradients, dim=tuple(range(1, gradients.ndim)))
        values.append(norms.square_().view(-1, delta.shape[1]).sum(1))
    return torch.cat(values)


def weight_gradients(x: Tensor, delta: Tensor, geometry: Geometry, images: int) -> Iterator[Tensor]:
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
