"""The pictures of frosted glass: those of the reference where they are, else made here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from gradbench.challenges.corruptions.plasma import plasma
from gradbench.challenges.counter import image_keys
from gradbench.errors import GradbenchError

NAMES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
"""The reference names a sixth picture, frost6.jpg, but never draws it."""
SIDE = 512
"""Of a synthesised picture."""


@dataclass(frozen=True)
class Pictures:
    """Pictures of frost.

    Attributes:
        pixels: (3, H, W) uint8 each.
    """

    pixels: tuple[Tensor, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all pixels."""
        sha = hashlib.sha256()
        for picture in self.pixels:
            sha.update(f"{tuple(picture.shape)}".encode())
            sha.update(picture.numpy().tobytes())
        return sha.hexdigest()

    def reduced(self, step: int, height: int, width: int) -> list[Tensor]:
        """Return every `step`-th pixel, mirrored on until a part of the given size fits in.

        The middle one of `step` pixels: what OpenCV's bilinear resizing by 1/5 takes.
        """
        found = []
        for picture in self.pixels:
            small = picture[:, step // 2 :: step, step // 2 :: step]
            for dim, side in ((1, height), (2, width)):
                while small.shape[dim] < side:
                    small = torch.cat([small, small.flip(dim)], dim)
            found.append(small)
        return found


def find(folder: Path, must: bool = False) -> Pictures | None:
    """Return the pictures of a folder, None if they are not there.

    Args:
        folder: of frost1.png to frost5.jpg.
        must: a missing picture is a fault.

    Raises:
        GradbenchError: if one cannot be read, or is missing though it must be there.
    """
    missing = [name for name in NAMES if not (folder / name).is_file()]
    if missing:
        if must:
            raise GradbenchError(
                f"frost pictures={folder}: {missing[0]} is not there; name a folder of "
                f"{', '.join(NAMES)}, or leave pictures out"
            )
        return None
    return Pictures(tuple(_read(folder / name) for name in NAMES))


def _read(path: Path) -> Tensor:
    """Return the (3, H, W) uint8 colours of a picture; a mask is dropped, not applied."""
    try:
        with Image.open(path) as picture:
            rgb = np.asarray(picture.convert("RGBA"))[..., :3]
    except (OSError, UnidentifiedImageError) as fault:
        raise GradbenchError(f"{path} is no readable picture: {fault}") from fault
    return torch.from_numpy(rgb.transpose(2, 0, 1).copy())


@lru_cache(maxsize=1)
def synthesised() -> Pictures:
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
    return Pictures(tuple(pixels))
