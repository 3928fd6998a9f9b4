"""Convolutions of one to three dimensions and transposed ones; conv_routes.py does the work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil, prod

import torch
from torch import Tensor

from gradbench.gradients.costs import Work
from gradbench.gradients.rules.base import STRIP, Rule, block_rows
from gradbench.gradients.rules.conv_routes import (
    Geometry,
    depthwise,
    direct,
    gram,
    native,
    weights,
)


class Convolution(Rule):
    """Weight and bias of a convolution.

    Args:
        geometry: of the convolution; of a transposed one, that of its adjoint.
        apply: function of (x, weight) to the layer's output without bias.
        transposed: whether the roles of x and delta are exchanged.
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

    def gradients(self, roles: Mapping[str, object], x: Tensor, delta: Tensor) -> dict[str, Tensor]:
        """Return the bias's gradient: the sum of delta over positions."""
        return {"bias": delta.flatten(2).sum(2)}

    def routes(self, x: torch.Size, delta: torch.Size, device: str) -> dict[str, Work]:
        """Return the work of direct, gram and native."""
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
        # Of a pointwise layer's Gram matrices the upper half is formed, in strips.
        half = (1 + min(1, STRIP / positions)) / 2 if g.pointwise else 1
        steps = 9 * ceil(positions / STRIP) if g.pointwise else 8 + 3 * sum(g.kernel)
        # Small groups leave lanes of the device's kernels idle; depthwise layers have their own.
        lanes = inputs * outputs
        if g.groups > 1:
            lanes = 10 if lanes == 1 else max(inputs, 16) * max(outputs, 16)
        # Depthwise ones are fast for kernels of 3, and start anew for every element of larger ones.
        starts = 7000 * kernel * x[1] if self._depthwise(x, delta) and max(g.kernel) > 3 else 0
        direct = Work(
            multiplications,
            copied + outputs * x[1] * kernel,
            calls / block_rows(inputs * pixels * last, device),
        )
        if self._depthwise(x, delta):
            work = 1.3 * x[1] * positions * kernel
            direct = Work(0, work, kernel / block_rows(x[1] * pixels, device))
        return {
            "direct": direct,
            "gram": Work(
                half * (pixels**2 * x[1] + positions**2 * delta[1]),
                g.groups * (2 * half * squares + added),
                g.groups * steps / block_rows(squares, device),
            ),
            "native": Work(
                positions * kernel * g.groups * lanes + starts,
                x[1] * pixels + delta[1] * positions + outputs * x[1] * kernel,
                1 / self._images(x, delta, device),
            ),
        }

    def _images(self, x: torch.Size, delta: torch.Size, device: str) -> int:
        """Return the images that the native route gives to the device at once."""
        weight = delta[1] * x[1] // self.geometry.groups * prod(self.geometry.kernel)
        return 1 if device == "cpu" else block_rows(weight, device)

    def _depthwise(self, x: torch.Size, delta: torch.Size) -> bool:
        return self.geometry.groups == x[1] == delta[1] > 1

    def norms(self, x: Tensor, delta: Tensor, route: str) -> Tensor:
        """Return the squared norms of the weight's gradients, x (B, C, ...), delta (B, P, ...)."""
        if self.transposed:
            x, delta = delta, x
        x, geometry = self.geometry.sparse(x)
        if route == "native":
            images = self._images(x.shape, delta.shape, x.device.type)
            return native(x, delta, geometry, images)
        groups = geometry.groups
        if route == "direct" and self._depthwise(x.shape, delta.shape):
            return depthwise(x, delta, geometry)
        if groups > 1:
            x, delta = (t.reshape(len(t) * groups, -1, *t.shape[2:]) for t in (x, delta))
        found = (gram if route == "gram" else direct)(x, delta, geometry)
        return found.view(-1, groups).sum(1)

    def formed(self, x: Tensor, delta: Tensor, shape: torch.Size) -> Tensor:
        """Return the weight's gradients, (B, *shape)."""
        if self.transposed:
            x, delta = delta, x
        x, geometry = self.geometry.sparse(x)
        images = self._images(x.shape, delta.shape, x.device.type)
        found = list(weights(x, delta, geometry, images))
        return (torch.cat(found) if len(found) > 1 else found[0]).reshape(-1, *shape)

    def products(self, x: Tensor, delta: Tensor, direction: Tensor) -> Tensor:
        """Return <dJ/dW, V>: the layer applied to x with weight V, times delta, summed."""
        return (self.apply(x, direction) * delta).flatten(1).sum(1)
