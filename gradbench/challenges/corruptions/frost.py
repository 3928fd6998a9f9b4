"""Frost on the lens, by the pictures of the reference where they are, else by synthesised ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from gradbench.challenges.colour import luma
from gradbench.challenges.corruptions.base import CommonCorruption
from gradbench.challenges.corruptions.weather import plasma
from gradbench.challenges.counter import image_keys, uniform
from gradbench.errors import GradbenchError

COVERED = {"cifar": 160, "imagenet": 224}
"""Side of the part of a frost picture that an image gets: in the cifar table every fifth pixel."""
NAMES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
"""The reference names a sixth picture, frost6.jpg, but never draws it."""
SIDE = 512
"""Of a synthesised picture."""


class Frost(CommonCorruption):
    """Pictures of frosted glass laid over the image: a random part of one of the first five.

    Differs from the paper: where there are no pictures, they are synthesised, and the note says so.
    Images of another size get the same part of a picture, reduced by the nearest whole number.

    Args:
        strengths: refused, since a level has two constants.
        table: of the constants.
        pictures: folder of frost1.png to frost5.jpg; None for the folder `frost` of the data root,
            where there is one.
    """

    family = "frost"

    def __init__(
        self,
        strengths: Sequence[float] | None = None,
        table: str = "cifar",
        pictures: str | None = None,
    ):
        super().__init__(strengths, table)
        self._named = pictures is not None
        self._pictures = _pictures_in(Path(pictures).expanduser(), True) if pictures else None

    def with_data(self, root: Path) -> Frost:
        """Take the pictures of the data root unless a folder was named."""
        if not self._named:
            self._pictures = _pictures_in(root / "frost", required=False)
        return self

    @property
    def pictures(self) -> Sequence[Tensor]:
        """The five pictures, (3, H, W) uint8 each."""
        return self._pictures or synthesised()

    @property
    def note(self) -> str:
        """The constants that were used, and whether the frost is synthesised."""
        return super().note + ("" if self._pictures else "; frost pictures synthesised")

    def settings(self) -> Mapping[str, Any]:
        """Return the table, which decides the part of a picture, and a digest of the pictures."""
        sha = hashlib.sha256()
        for picture in self.pictures:
            sha.update(f"{tuple(picture.shape)}".encode())
            sha.update(picture.numpy().tobytes())
        return {"table": self.table, "pictures": sha.hexdigest()}

    def corrupt(self, images: Tensor, keys: Tensor, image_weight: float, weight: float) -> Tensor:
        """Add a random part of a random picture to an image, both weighted.

        Images of one channel get the picture's luma.
        """
        height, width = images.shape[-2:]
        drawn = uniform(keys, (3,)).double()
        which = (drawn[:, 0] * len(self.pictures)).long()
        step = max(1, COVERED[self.table] // max(height, width))
        shape = (len(images), 3, height, width)
        layer = torch.empty(shape, dtype=images.dtype, device=images.device)
        for number, picture in enumerate(self.pictures):
            with_picture = which == number
            if not bool(with_picture.any()):
                continue
            # the middle one of `step` pixels: what OpenCV's bilinear resizing by 1/5 takes
            picture = picture[:, step // 2 :: step, step // 2 :: step]
            places = []
            for dim, side in ((1, height), (2, width)):
                while picture.shape[dim] < side:
                    picture = torch.cat([picture, picture.flip(dim)], dim)
                start = (drawn[with_picture, dim] * max(1, picture.shape[dim] - side)).long()
                places.append(start[:, None] + torch.arange(side, device=images.device))
            rows, columns = places
            cut = picture.to(images.device)[:, rows[:, :, None], columns[:, None, :]]
            layer[with_picture] = cut.transpose(0, 1).to(images.dtype) / 255
        layer = layer if images.shape[1] == 3 else luma(layer)
        return (image_weight * images + weight * layer).clamp_(0, 1)


def _pictures_in(folder: Path, required: bool) -> list[Tensor] | None:
    """Return the pictures of a folder, None if they are missing and not required."""
    missing = [name for name in NAMES if not (folder / name).is_file()]
    if missing and required:
        raise GradbenchError(
            f"frost pictures={folder}: {missing[0]} is not there; name a folder of "
            f"{', '.join(NAMES)}, or leave pictures out"
        )
    if missing:
        return None
    pictures = []
    for path in (folder / name for name in NAMES):
        try:
            with Image.open(path) as picture:
                rgb = np.asarray(picture.convert("RGBA"))[..., :3]  # a mask is not applied
        except (OSError, UnidentifiedImageError) as fault:
            raise GradbenchError(f"{path} is no readable picture: {fault}") from fault
        pictures.append(torch.from_numpy(rgb.transpose(2, 0, 1).copy()))
    return pictures


@lru_cache(maxsize=1)
def synthesised() -> Sequence[Tensor]:
    """Return five pictures of frost made here: bright veins between dark, bluish panes.

    A vein is where a cloud of fine scale crosses its middle height; three clouds of rising
    roughness are laid over each other. The same in every run.
    """
    keys = image_keys(0, "frost pictures", [str(number) for number in range(len(NAMES))])
    depth = torch.zeros(len(NAMES), SIDE, SIDE, dtype=torch.float64)
    for weight, decay, salt in ((0.5, 1.35, 1), (0.3, 1.25, 2), (0.2, 1.15, 3)):
        cloud = plasma(keys * salt + salt, SIDE, decay)
        veins = (1 - (cloud - 0.5).abs() * 9).clamp_(0, 1)
        depth += weight * veins
    haze = plasma(keys + 7, SIDE, 1.7)
    bright = (0.25 + 0.35 * haze + 0.75 * depth).clamp_(0, 1)
    channels = [bright**gamma for gamma in (1.25, 1.05, 0.9)]
    pixels = torch.stack(channels, 1).mul_(255).round_().to(torch.uint8)
    return tuple(pixels)
