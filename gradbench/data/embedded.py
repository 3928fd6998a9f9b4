"""Images that come with scikit-learn, so that everything runs without any data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from msgspec import Meta

from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.imageset import ImageSet
from gradbench.data.loading import LoadedSplit
from gradbench.data.roles import draw_hold_out

PHOTOGRAPHS = ("china", "flower")
TEST_DIGITS = 597


class EmbeddedSet(Dataset):
    """A set that is always here, and lies in no file of its own."""

    def is_local(self, split: str, settings: DataSettings) -> bool:
        """Return True."""
        return True

    def count(self, split: str, settings: DataSettings) -> tuple[int | None, bool]:
        """Return the official number of images."""
        return self.counts.get(split), False


class Digits(EmbeddedSet):
    """scikit-learn's 1,797 handwritten digits: 1,200 to train, 597 to test, native 8x8 grey.

    The split is fixed, class-stratified and drawn with seed 0. Intensities 0..16 are scaled to
    the grid 0..255. The images stay 8x8 unless `shape` asks for another size: enlarging adds
    nothing but interpolation, and `SmallCNN` takes 8x8 as it is.
    """

    def read(self, split: str, settings: DataSettings) -> LoadedSplit:
        """Return the training or test digits."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
        labels = digits.target.astype(np.int64)
        test = draw_hold_out(labels, np.arange(len(labels)), TEST_DIGITS)
        rows = test if split == "test" else ~test
        return LoadedSplit(np.ascontiguousarray(images[rows]), labels[rows])


@dataclass(kw_only=True, eq=False)
class Patches(EmbeddedSet):
    """Non-overlapping tiles of scikit-learn's two sample photographs, 640x427 RGB each.

    Tiles of 32 pixels make 520 images. Neighbouring tiles look alike, so blocks of `block` x
    `block` tiles form one group; the label is the photograph.
    """

    tile: Annotated[int, Meta(ge=1, le=427)] = 32
    block: Annotated[int, Meta(ge=1)] = 4

    def processing_of(self, images: ImageSet) -> list[dict] | None:
        """Return the JPEG of the photographs, on tiles of their size."""
        return [{"shape": [self.tile, self.tile], "jpeg": self.jpeg}]

    def read(self, split: str, settings: DataSettings) -> LoadedSplit:
        """Return the tiles of both photographs, row by row."""
        from sklearn.datasets import load_sample_image

        images, labels, groups, side = [], [], [], self.tile
        for label, name in enumerate(PHOTOGRAPHS):
            photograph = load_sample_image(f"{name}.jpg")
            for row in range(photograph.shape[0] // side):
                for column in range(photograph.shape[1] // side):
                    top, left = row * side, column * side
                    images.append(photograph[top : top + side, left : left + side])
                    labels.append(label)
                    groups.append(f"{name}/{row // self.block}-{column // self.block}")
        pixels = np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))
        return LoadedSplit(pixels, np.array(labels), classes=PHOTOGRAPHS, groups=np.array(groups))
