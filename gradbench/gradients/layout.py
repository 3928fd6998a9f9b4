"""The place of the images of a batch in a layer's tensors.

Usually they come first, one row each. Attention layers may have tokens first, (T, B, C), or fold
them into the first dimension, (T B, C); windowed ones fold windows, (B T, ..., C).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """A way to bring images to the front."""

    dimension: int | None = 0  # of the images; None: the whole tensor belongs to the one image
    rows: int = 1  # of that dimension, for each image
    apart: bool = False  # row 0 of every image first, instead of an image's rows side by side

    @property
    def plain(self) -> bool:
        """Whether images come first already, one row each."""
        return self.dimension == 0 and self.rows == 1

    def images_first(self, values: Tensor) -> Tensor:
        """Return values with the images in the first dimension."""
        if self.plain:
            return values
        if self.dimension is None:
            return values[None]
        if self.apart:
            return values.unflatten(0, (self.rows, -1)).transpose(0, 1)
        if self.rows > 1:
            return values.unflatten(0, (-1, self.rows))
        return values.movedim(self.dimension, 0)

    def first_image(self, values: Tensor) -> Tensor:
        """Return the values of the first image, in the shape that they have for one image."""
        if self.dimension is None:
            return values
        if self.apart:
            return values[:: len(values) // self.rows]
        return values.narrow(self.dimension, 0, self.rows)


def candidates(together: torch.Size, alone: torch.Size, images: int) -> list[Layout]:
    """Return the layouts allowed by a tensor's shape for a batch of 2 and more, and for one image.

    There are two where rows are folded: nothing but values tells side by side from apart.
    """
    if len(together) != len(alone):
        return []
    differing = [i for i, (a, b) in enumerate(zip(together, alone)) if a != b]
    if len(differing) != 1:
        return []
    (dimension,) = differing
    if (together[dimension], alone[dimension]) == (images, 1):
        return [Layout(dimension)]
    if dimension == 0 and together[0] == images * alone[0]:
        return [Layout(0, alone[0]), Layout(0, alone[0], apart=True)]
    return []


def sample(values: Tensor) -> Tensor:
    """Return some values spread over all dimensions, at most 16 along each, as a view."""
    steps = (max(1, size // 16) for size in values.shape)
    return values[tuple(slice(0, 16 * step, step) for step in steps)]
