"""Blurs: Gaussian, defocus, glass, motion and zoom."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from gradbench.challenges.corruptions.base import CommonCorruption, over_255
from gradbench.challenges.corruptions.filters import correlate, gaussian
from gradbench.challenges.corruptions.sampling import mean_of_zooms, trail
from gradbench.challenges.counter import random_bits, uniform


class GaussianBlur(CommonCorruption):
    """Gaussian blur, edges repeated; the strength is its deviation in pixels."""

    family = "gaussian_blur"
    bounds = (0, 100)

    def corrupt(self, images: Tensor, keys: Tensor, deviation: float) -> Tensor:
        """Smooth by a Gaussian that ends at 4 deviations; nothing is random."""
        return gaussian(images, deviation).clamp_(0, 1)


class DefocusBlur(CommonCorruption):
    """A lens out of focus: the mean over a disk with a softened rim."""

    family = "defocus_blur"

    def corrupt(self, images: Tensor, keys: Tensor, radius: float, rim: float) -> Tensor:
        """Correlate with a disk, the border mirrored; nothing is random."""
        return correlate(images, disk(float(radius), float(rim))).clamp_(0, 1)


class GlassBlur(CommonCorruption):
    """Frosted glass: pixels replaced by near ones between two Gaussian blurs."""

    family = "glass_blur"

    def corrupt(
        self, images: Tensor, keys: Tensor, deviation: float, reach: int, rounds: int
    ) -> Tensor:
        """Blur, cut to grey levels, replace pixels by near ones round by round, blur again.

        Pixels are visited from the last to the first, and each takes the colour that a pixel up to
        `reach` before or `reach` - 1 behind it in either direction has at that time. The reference
        means to swap the two, but numpy's swap of rows copies: so the archive has copies, and so
        have these. A margin of `reach` pixels (one more above and to the left) is not visited.
        """
        reach, height, width = int(reach), *images.shape[-2:]
        whole = gaussian(images, deviation).mul_(255).floor_()
        flat = whole.flatten(2)
        for number in range(int(rounds)):
            places = _places_after_round(keys, height, width, reach, number)
            flat = flat.gather(2, places[:, None].expand(-1, flat.shape[1], -1))
        return gaussian(over_255(flat.view(images.shape)), deviation).clamp_(0, 1)


class MotionBlur(CommonCorruption):
    """A camera moved in a straight line within 45 degrees of the horizontal.

    Differs from the paper: a line kernel after ImageMagick's formula in place of ImageMagick.
    """

    family = "motion_blur"

    def corrupt(self, images: Tensor, keys: Tensor, radius: int, deviation: float) -> Tensor:
        """Blur along a line; rounded to grey levels, as the image file in the reference is."""
        angles = uniform(keys, (1,))[:, 0].double() * 90 - 45
        blurred = trail(images, angles, radius, deviation)
        return over_255(blurred.mul_(255).add_(0.5).floor_().clamp_(0, 255))


class ZoomBlur(CommonCorruption):
    """A camera moved towards the scene: the mean over zooms of the image.

    Differs from the paper: sums in float64 where the reference has float32.
    """

    family = "zoom_blur"

    def corrupt(self, images: Tensor, keys: Tensor, end: float, step: float) -> Tensor:
        """Return the mean of an image and its zooms by 1 to `end` (excluded)."""
        factors = tuple(np.arange(1, end, step).tolist())
        weights = mean_of_zooms(*images.shape[-2:], factors)
        pixels = images.flatten(2).permute(2, 0, 1).flatten(1).cpu().numpy()  # pixel by pixel
        mean = torch.from_numpy(weights @ pixels).view(-1, *images.shape[:2]).permute(1, 2, 0)
        return mean.reshape(images.shape).to(images).clamp_(0, 1)


@lru_cache(maxsize=16)
def disk(radius: float, rim: float) -> np.ndarray:
    """Return the weights of a disk softened by a Gaussian of 3 x 3, above a radius of 8 of 5 x 5.

    In float32, as in the reference: on plain surfaces the last bit of their sum decides whether a
    grey level is cut off. Rows and columns of zeros are left out.
    """
    reach, half = (8, 1) if radius <= 8 else (int(radius), 2)
    places = np.arange(-reach, reach + 1)
    inside = (places[:, None] ** 2 + places**2 <= radius**2).astype(np.float32)
    soft = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * rim * rim))
    soft = (soft / soft.sum()).astype(np.float32)
    weights = inside / inside.sum()
    for _ in range(2):  # along one axis, then the other; OpenCV mirrors at the border
        padded = np.pad(weights, ((half, half), (0, 0)), mode="reflect")
        weights = sum(w * padded[i : i + len(weights)] for i, w in enumerate(soft)).T
    used = np.flatnonzero(weights.max(0) > 0)
    return weights[used[0] : used[-1] + 1, used[0] : used[-1] + 1]


def _places_after_round(keys: Tensor, height: int, width: int, reach: int, number: int) -> Tensor:
    """Return (B, H W): the pixel whose colour before the round each pixel has after it."""
    device = keys.device
    pixels = torch.arange(height * width, device=device)
    row, column = pixels // width, pixels % width
    inside = (row > reach) & (row <= height - reach) & (column > reach) & (column <= width - reach)
    bits = random_bits(keys, 2 * len(pixels), number).view(len(keys), 2, -1)
    moves = ((bits >> 33) & 0x7FFFFFFF).mul_(2 * reach) >> 31
    near = pixels + (moves[:, 0] - reach) * width + moves[:, 1] - reach
    places = torch.where(inside, near, pixels)
    # a pixel visited before has its new colour already: its own source is what counts
    later = inside[places] & (places > pixels)
    while bool(later.any()):
        step = places.gather(1, places)
        places, later = torch.where(later, step, places), later & later.gather(1, places)
    return places
