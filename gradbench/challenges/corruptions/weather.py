"""Weather: fog, frost and snow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradbench.challenges.colour import luma
from gradbench.challenges.corruptions.base import Corruption
from gradbench.challenges.corruptions.frost_pictures import Pictures, find, synthesised
from gradbench.challenges.corruptions.plasma import covering, plasma
from gradbench.challenges.corruptions.sampling import trail, zoomed
from gradbench.challenges.counter import normal, uniform

COVERED = {"cifar": 160, "imagenet": 224}
"""Side of the part of a frost picture that an image gets: in the cifar table every fifth pixel."""


class Fog(Corruption):
    """A cloudy veil that hides contrast; other sizes are cut out of the next power of two."""

    family = "fog"

    def corrupt(self, images: Tensor, keys: Tensor, weight: float, decay: float) -> Tensor:
        """Return images in fog."""
        return fog(images, keys, weight, decay)


class Frost(Corruption):
    """Pictures of frosted glass laid over the image: a random part of one of the first five.

    Differs from the paper: where there are no pictures, they are synthesised, and the note says so.
    Images of another size get the same part of a picture, reduced by the nearest whole number.

    Args:
        strengths: refused, since a level has two constants.
        table: of the constants.
        pictures: folder of frost1.png to frost6.jpg, of which the sixth is never used, as in the
            reference; None for the folder `frost` of the data root, where there is one.

    Raises:
        GradbenchError: if the folder does not hold the pictures.
    """

    family = "frost"
    by_table = True

    def __init__(
        self,
        strengths: Sequence[float] | None = None,
        table: str = "cifar",
        pictures: str | None = None,
    ):
        super().__init__(strengths, table)
        self._given = pictures is not None
        self._pictures = find(Path(pictures).expanduser(), must=True) if pictures else None

    def with_data(self, root: Path) -> Frost:
        """Take the pictures of the data root unless a folder was named."""
        if not self._given:
            self._pictures = find(root / "frost")
        return self

    @property
    def pictures(self) -> Pictures:
        """The five pictures."""
        return self._pictures or synthesised()

    @property
    def note(self) -> str:
        """Which constants, and whether the frost is synthesised."""
        return super().note + ("" if self._pictures else "; frost pictures synthesised")

    def settings(self) -> Mapping[str, Any]:
        """Return what the images depend on besides the strength."""
        return {**super().settings(), "pictures": self.pictures.digest}

    def corrupt(self, images: Tensor, keys: Tensor, own: float, weight: float) -> Tensor:
        """Return images behind frost."""
        return frost(images, keys, own, weight, self.pictures, COVERED[self.table])


class Snow(Corruption):
    """Falling flakes, blurred along their way, over a whitened image.

    Differs from the paper: a line kernel after ImageMagick's formula in place of ImageMagick;
    float64 where the reference has float32.
    """

    family = "snow"

    def corrupt(self, images: Tensor, keys: Tensor, *constants: float) -> Tensor:
        """Return images in snow."""
        return snow(images, keys, *constants)


def fog(images: Tensor, keys: Tensor, weight: float, decay: float) -> Tensor:
    """Add a cloud, and scale so that the brightest value of the image stays where it was."""
    height, width = images.shape[-2:]
    cloud = plasma(keys, covering(height, width), decay)[:, None, :height, :width]
    brightest = images.amax((1, 2, 3), keepdim=True)
    veiled = (images + weight * cloud.to(images.dtype)) * brightest
    return (veiled / (brightest + weight)).clamp_(0, 1)


def frost(
    images: Tensor, keys: Tensor, own: float, weight: float, pictures: Pictures, covered: int
) -> Tensor:
    """Add a random part of a random picture to an image, both weighted.

    Args:
        images: (B, C, H, W) in [0, 1]; those of one channel get the picture's luma.
        keys: (B,).
        own: weight of the image.
        weight: of the frost.
        pictures: of frost.
        covered: side of the part of a picture, in its pixels.
    """
    height, width = images.shape[-2:]
    drawn = uniform(keys, (3,)).double()
    which = (drawn[:, 0] * len(pictures.pixels)).long()
    step = max(1, covered // max(height, width))
    layer = torch.empty((len(images), 3, height, width), dtype=images.dtype, device=images.device)
    for number, picture in enumerate(pictures.reduced(step, height, width)):
        mine = which == number
        if not bool(mine.any()):
            continue
        rows, columns = (
            (drawn[mine, i] * max(1, picture.shape[i] - side)).long()[:, None]
            + torch.arange(side, device=images.device)
            for i, side in ((1, height), (2, width))
        )
        cut = picture.to(images.device)[:, rows[:, :, None], columns[:, None, :]]
        layer[mine] = cut.transpose(0, 1).to(images.dtype) / 255
    layer = layer if images.shape[1] == 3 else luma(layer)
    return (own * images + weight * layer).clamp_(0, 1)


def snow(
    images: Tensor,
    keys: Tensor,
    mean: float,
    deviation: float,
    zoom: float,
    threshold: float,
    radius: int,
    spread: float,
    own: float,
) -> Tensor:
    """Add flakes and the same flakes turned by 180 degrees to a whitened image.

    Args:
        images: (B, C, H, W) in [0, 1].
        keys: (B,).
        mean: of the normal noise that flakes are made of.
        deviation: of it.
        zoom: by which flakes are enlarged.
        threshold: below which there is no flake.
        radius: of a flake's trail.
        spread: deviation along the trail.
        own: weight of the image; the rest is a brighter, greyer one.
    """
    flakes = normal(keys, images.shape[-2:]).to(images.dtype) * deviation + mean
    if zoom != 1:
        flakes = zoomed(flakes, zoom)
    flakes = flakes.masked_fill(flakes < threshold, 0).clamp_(0, 1)
    whole = flakes.mul_(255).floor_()[:, None]
    angles = uniform(keys, (1,), stream=1)[:, 0].double() * 90 - 135
    whole = trail(whole, angles, radius, spread).add_(0.5).floor_()
    divisor = torch.tensor(255.0, dtype=images.dtype, device=images.device)
    layer = whole / divisor
    white = own * images + (1 - own) * torch.maximum(images, luma(images) * 1.5 + 0.5)
    return (white + layer + layer.flip((-2, -1))).clamp_(0, 1)
