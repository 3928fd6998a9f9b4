"""Weather: fog and snow, and the clouds that fog, haze and frost are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from gradbench.challenges.colour import luma
from gradbench.challenges.corruptions.base import CommonCorruption, over_255
from gradbench.challenges.corruptions.sampling import trail, zoomed
from gradbench.challenges.counter import normal, uniform


class Fog(CommonCorruption):
    """A cloudy veil that hides contrast; other sizes are cut out of the next power of two."""

    family = "fog"

    def corrupt(self, images: Tensor, keys: Tensor, weight: float, decay: float) -> Tensor:
        """Add a cloud, and scale so that the brightest value of the image stays where it was."""
        brightest = images.amax((1, 2, 3), keepdim=True)
        veiled = (images + weight * clouds_over(images, keys, decay)) * brightest
        return (veiled / (brightest + weight)).clamp_(0, 1)


class Snow(CommonCorruption):
    """Falling flakes, blurred along their way, over a whitened image.

    Differs from the paper: a line kernel after ImageMagick's formula in place of ImageMagick;
    float64 where the reference has float32.
    """

    family = "snow"

    def corrupt(
        self,
        images: Tensor,
        keys: Tensor,
        mean: float,
        deviation: float,
        zoom: float,
        threshold: float,
        radius: int,
        spread: float,
        image_weight: float,
    ) -> Tensor:
        """Add flakes and the same flakes turned by 180 degrees to a whitened image.

        The constants are those of the table, in its order.
        """
        flakes = normal(keys, images.shape[-2:]).to(images.dtype) * deviation + mean
        if zoom != 1:
            flakes = zoomed(flakes, zoom)
        flakes = flakes.masked_fill(flakes < threshold, 0).clamp_(0, 1)
        whole = flakes.mul_(255).floor_()[:, None]
        angles = uniform(keys, (1,), stream=1)[:, 0].double() * 90 - 135
        layer = over_255(trail(whole, angles, radius, spread).add_(0.5).floor_())
        grey = torch.maximum(images, luma(images) * 1.5 + 0.5)
        white = image_weight * images + (1 - image_weight) * grey
        return (white + layer + layer.flip((-2, -1))).clamp_(0, 1)


def clouds_over(images: Tensor, keys: Tensor, decay: float) -> Tensor:
    """Return (B, 1, H, W) clouds in [0, 1], cut out of the next power of two."""
    height, width = images.shape[-2:]
    side = 1 << (max(height, width) - 1).bit_length()
    return plasma(keys, side, decay)[:, None, :height, :width].to(images.dtype)


def plasma(keys: Tensor, size: int, decay: float) -> Tensor:
    """Return (B, size, size) float64 height maps in [0, 1] that join at opposite borders.

    Diamond-square (Fournier, Fussell and Carpenter 1982) on a torus: halving the step, the middles
    of squares and then of diamonds become the mean of their four corners, plus a random number
    whose spread falls with the square of `decay`, above 1, from scale to scale. `size` is a power
    of two.
    """
    kind = torch.float32 if keys.device.type == "mps" else torch.float64
    heights = torch.zeros(len(keys), size, size, dtype=kind, device=keys.device)
    step, spread, stream = size, 100.0, 0
    while step >= 2:
        half, squares = step // 2, heights[:, ::step, ::step]
        shape = squares.shape[1:]

        def moved(total: Tensor, stream: int, spread: float = spread, shape=shape) -> Tensor:
            noise = uniform(keys, shape, stream).to(total.dtype).mul_(2).sub_(1)
            return total / 4 + noise * (spread * spread)

        pairs = squares + squares.roll(-1, 1)
        middles = moved(pairs + pairs.roll(-1, 2), stream)
        above = middles + middles.roll(1, 1) + squares + squares.roll(-1, 2)
        beside = middles + middles.roll(1, 2) + squares + squares.roll(-1, 1)
        heights[:, half::step, half::step] = middles
        heights[:, ::step, half::step] = moved(above, stream + 1)
        heights[:, half::step, ::step] = moved(beside, stream + 2)
        step, spread, stream = half, spread / decay, stream + 3
    heights -= heights.amin((1, 2), keepdim=True)
    return heights / heights.amax((1, 2), keepdim=True)
