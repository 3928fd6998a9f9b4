"""Elastic deformation: a random affine map, then smooth random displacements."""

from __future__ import annotations

import torch
from torch import Tensor

from gradbench.challenges.corruptions.base import CommonCorruption
from gradbench.challenges.corruptions.filters import gaussian
from gradbench.challenges.corruptions.sampling import between
from gradbench.challenges.counter import uniform


class ElasticTransform(CommonCorruption):
    """Images stretched here and pressed there (after Simard, Steinkraus and Platt 2003).

    The constants are shares of the image's shorter side, so they scale with its size.

    Differs from the paper: the affine map reads exactly between pixels, where OpenCV rounds places
    to 1/32 of a pixel; float64 where the reference has float32.
    """

    family = "elastic_transform"

    def corrupt(
        self, images: Tensor, keys: Tensor, displacement: float, smoothing: float, corners: float
    ) -> Tensor:
        """Deform images; the constants are those of the table."""
        height, width = images.shape[-2:]
        side = min(height, width)
        rows = torch.arange(height, device=images.device, dtype=images.dtype)[:, None]
        columns = torch.arange(width, device=images.device, dtype=images.dtype)
        images = between(images, *_affine(keys, rows, columns, corners * side), "mirror")
        noise = uniform(keys, (2, height, width), stream=1).to(images.dtype).mul_(2).sub_(1)
        moved = gaussian(noise, smoothing * side, "reflect", truncate=3) * (displacement * side)
        right, down = moved.unbind(1)
        return between(images, rows + down, columns + right, "reflect").clamp_(0, 1)


def _affine(keys: Tensor, rows: Tensor, columns: Tensor, shift: float) -> tuple[Tensor, Tensor]:
    """Return the places (y, x), each (B, H, W), that a random affine map reads each pixel from.

    The map that brings three points near the middle to themselves plus a random shift, inverted.
    """
    height, width = len(rows), len(columns)
    arm, across, below = min(height, width) // 3, width // 2, height // 2
    fixed = torch.tensor(
        [[across + arm, below + arm], [across + arm, below - arm], [across - arm, below - arm]],
        device=keys.device,
        dtype=rows.dtype,
    )
    shifts = uniform(keys, (3, 2)).to(rows.dtype).mul_(2).sub_(1) * shift
    moved = fixed + shifts
    # fixed = origin + a (moved - moved_0): solve for the two columns of a by Cramer's rule
    first, second = moved[:, 1] - moved[:, 0], moved[:, 2] - moved[:, 0]
    to_first, to_second = fixed[1] - fixed[0], fixed[2] - fixed[0]
    area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    dx = columns - moved[:, 0, 0, None, None]
    dy = rows - moved[:, 0, 1, None, None]
    places = []
    for axis in (1, 0):
        one = (to_first[axis] * second[:, 1] - to_second[axis] * first[:, 1]) / area
        two = (to_second[axis] * first[:, 0] - to_first[axis] * second[:, 0]) / area
        places.append(fixed[0, axis] + one[:, None, None] * dx + two[:, None, None] * dy)
    return places[0], places[1]
