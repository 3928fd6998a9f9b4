"""Light and files: brightness, contrast, saturation, JPEG and pixelation."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gradbench.challenges.colour import to_hsv, to_rgb
from gradbench.challenges.corruptions.base import CommonCorruption, over_255
from gradbench.challenges.corruptions.filters import ordered_sum


class Brightness(CommonCorruption):
    """A brighter exposure; the strength is added to the value of HSV."""

    family = "brightness"
    bounds = (0, 1)

    def corrupt(self, images: Tensor, keys: Tensor, shift: float) -> Tensor:
        """Add to the value of HSV; nothing is random."""
        if images.shape[1] == 1:
            return (images + shift).clamp_(0, 1)
        hue, saturation, value = to_hsv(images).unbind(1)
        return to_rgb(hue, saturation, (value + shift).clamp_(0, 1)).clamp_(0, 1)


class Contrast(CommonCorruption):
    """Less contrast; the strength is the factor of the distance from the mean."""

    family = "contrast"
    bounds = (0.001, 1)

    def corrupt(self, images: Tensor, keys: Tensor, factor: float) -> Tensor:
        """Move values towards the mean of their channel; nothing is random."""
        count = torch.tensor(float(images[0, 0].numel()), dtype=images.dtype, device=images.device)
        mean = (ordered_sum(images.flatten(2)) / count)[:, :, None, None]
        return ((images - mean) * factor + mean).clamp_(0, 1)


class Saturate(CommonCorruption):
    """Less colour at the first levels, more at the last; images of one channel stay as they are."""

    family = "saturate"

    def corrupt(self, images: Tensor, keys: Tensor, factor: float, shift: float) -> Tensor:
        """Scale the saturation of HSV and add to it; nothing is random.

        Pixels without colour count as red, as in the reference: an added saturation tints them.
        """
        if images.shape[1] == 1:
            return images.clone()
        hue, saturation, value = to_hsv(images).unbind(1)
        return to_rgb(hue, (saturation * factor + shift).clamp_(0, 1), value).clamp_(0, 1)


class JpegCompression(CommonCorruption):
    """JPEG by Pillow, on the processor; the strength is its quality."""

    family = "jpeg_compression"
    bounds = (1, 100)

    def corrupt(self, images: Tensor, keys: Tensor, quality: float) -> Tensor:
        """Encode and decode with Pillow's default colour subsampling; nothing is random."""

        def compressed(picture: Image.Image) -> Image.Image:
            stream = BytesIO()
            picture.save(stream, "JPEG", quality=int(quality))
            return Image.open(stream)

        return _each_picture(images, compressed)


class Pixelate(CommonCorruption):
    """Fewer pixels, enlarged again; the strength is the side that is left, as a share."""

    family = "pixelate"
    bounds = (0.001, 1)

    def corrupt(self, images: Tensor, keys: Tensor, share: float) -> Tensor:
        """Reduce by the mean over boxes and enlarge again, by Pillow; nothing is random."""

        def coarser(picture: Image.Image) -> Image.Image:
            small = [max(1, int(side * share)) for side in picture.size]
            box = Image.Resampling.BOX
            return picture.resize(small, box).resize(picture.size, box)

        return _each_picture(images, coarser)


def _each_picture(images: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    """Return images that were changed one by one as pictures of 8 bits."""
    grey = images.mul(255).round_().to(torch.uint8).cpu().permute(0, 2, 3, 1).numpy()
    out = np.empty_like(grey)
    for i, pixels in enumerate(grey):
        picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
        out[i] = np.asarray(change(picture)).reshape(pixels.shape)
    return over_255(torch.from_numpy(out).permute(0, 3, 1, 2).to(images))
