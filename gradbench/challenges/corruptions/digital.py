"""Light and files: brightness, contrast, saturation, JPEG and pixelation."""

from __future__ import annotations

import math
from functools import lru_cache
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gradbench.challenges.colour import to_hsv, to_rgb
from gradbench.challenges.corruptions.base import Corruption
from gradbench.challenges.corruptions.filters import ordered_sum

_BITS = 22
"""Binary places of Pillow's weights for images of 8 bits."""


class Brightness(Corruption):
    """A brighter exposure; the strength is added to the value of HSV."""

    family = "brightness"
    bounds = (0, 1)

    def corrupt(self, images: Tensor, keys: Tensor, shift: float) -> Tensor:
        """Return brighter images."""
        return brightness(images, keys, shift)


class Contrast(Corruption):
    """Less contrast; the strength is the factor of the distance from the mean."""

    family = "contrast"
    bounds = (0.001, 1)

    def corrupt(self, images: Tensor, keys: Tensor, factor: float) -> Tensor:
        """Return flatter images."""
        return contrast(images, keys, factor)


class Saturate(Corruption):
    """Less colour at the first levels, more at the last; images of one channel stay as they are."""

    family = "saturate"

    def corrupt(self, images: Tensor, keys: Tensor, factor: float, shift: float) -> Tensor:
        """Return recoloured images."""
        return saturate(images, keys, factor, shift)


class JpegCompression(Corruption):
    """JPEG by Pillow, on the processor; the strength is its quality."""

    family = "jpeg_compression"
    bounds = (1, 100)

    def corrupt(self, images: Tensor, keys: Tensor, quality: float) -> Tensor:
        """Return compressed images."""
        return jpeg_compression(images, keys, quality)


class Pixelate(Corruption):
    """Fewer pixels, enlarged again; the strength is the side that is left, as a share."""

    family = "pixelate"
    bounds = (0.001, 1)

    def corrupt(self, images: Tensor, keys: Tensor, share: float) -> Tensor:
        """Return coarser images."""
        return pixelate(images, keys, share)


def brightness(images: Tensor, keys: Tensor, shift: float) -> Tensor:
    """Add to the value of HSV; nothing is random."""
    if images.shape[1] == 1:
        return (images + shift).clamp_(0, 1)
    hue, saturation, value = to_hsv(images)
    return to_rgb(hue, saturation, (value + shift).clamp_(0, 1)).clamp_(0, 1)


def contrast(images: Tensor, keys: Tensor, factor: float) -> Tensor:
    """Move values towards the mean of their channel; nothing is random."""
    count = torch.tensor(float(images[0, 0].numel()), dtype=images.dtype, device=images.device)
    mean = (ordered_sum(images.flatten(2)) / count)[:, :, None, None]
    return ((images - mean) * factor + mean).clamp_(0, 1)


def saturate(images: Tensor, keys: Tensor, factor: float, shift: float) -> Tensor:
    """Scale the saturation of HSV and add to it; nothing is random.

    Pixels without colour count as red, as in the reference: an added saturation tints them.
    """
    if images.shape[1] == 1:
        return images.clone()
    hue, saturation, value = to_hsv(images)
    return to_rgb(hue, (saturation * factor + shift).clamp_(0, 1), value).clamp_(0, 1)


def jpeg_compression(images: Tensor, keys: Tensor, quality: float) -> Tensor:
    """Encode and decode with Pillow's default colour subsampling; nothing is random."""
    grey = images.mul(255).round_().to(torch.uint8).cpu().permute(0, 2, 3, 1).numpy()
    out = np.empty_like(grey)
    for i, pixels in enumerate(grey):
        stream = BytesIO()
        picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
        picture.save(stream, "JPEG", quality=int(quality))
        with Image.open(stream) as decoded:
            out[i] = np.asarray(decoded).reshape(pixels.shape)
    decoded = torch.from_numpy(out).permute(0, 3, 1, 2).to(images)
    return decoded / torch.tensor(255.0, dtype=images.dtype, device=images.device)


def pixelate(images: Tensor, keys: Tensor, share: float) -> Tensor:
    """Reduce by the mean over boxes and enlarge again, as Pillow does it; nothing is random."""
    grey = images.mul(255).round_()
    sides = images.shape[-2:]
    small = [max(1, int(side * share)) for side in sides]
    for wanted in (small, sides):
        for dim in (-1, -2):  # Pillow resizes rows first
            grey = _boxes(grey, dim, wanted[dim])
    return grey / torch.tensor(255.0, dtype=images.dtype, device=images.device)


def _boxes(grey: Tensor, dim: int, wanted: int) -> Tensor:
    """Resize an axis of grey levels by means over boxes, in Pillow's whole numbers: exact sums."""
    places, weights = _box_taps(grey.shape[dim], wanted)
    shape = (-1, 1) if dim == -2 else (-1,)
    summed = 2.0 ** (_BITS - 1)
    for place, weight in zip(places, weights):
        chosen = grey.index_select(dim, place.to(grey.device))
        summed = summed + chosen * weight.to(grey).view(shape)
    return summed.mul_(2.0**-_BITS).floor_().clamp_(0, 255)


@lru_cache(maxsize=64)
def _box_taps(size: int, wanted: int) -> tuple[Tensor, Tensor]:
    """Return (taps, wanted) places and weights of Pillow's box filter, weights times 2**22."""
    scale = size / wanted
    reach = 0.5 * max(scale, 1.0)
    taps = math.ceil(reach) * 2 + 1
    places, weights = np.zeros((taps, wanted), np.int64), np.zeros((taps, wanted))
    for i in range(wanted):
        centre = (i + 0.5) * scale
        first = max(int(centre - reach + 0.5), 0)
        last = min(int(centre + reach + 0.5), size)
        offsets = (np.arange(first, last) - centre + 0.5) / max(scale, 1.0)
        inside = ((offsets > -0.5) & (offsets <= 0.5)).astype(float)
        inside /= inside.sum()
        places[: last - first, i] = np.arange(first, last)
        weights[: last - first, i] = np.floor(inside * 2**_BITS + 0.5)
    return torch.from_numpy(places), torch.from_numpy(weights)
