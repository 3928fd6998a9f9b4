"""Which images are shown, and how they are named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from gradbench.data.dataset import Dataset, DataSettings, MissingData
from gradbench.data.files import FileImages
from gradbench.data.imageset import ImageSet, to_float, to_grid
from gradbench.data.loading import WHOLE
from gradbench.data.picture import to_array
from gradbench.errors import GradbenchError
from gradbench.report.sheet import magnification

WORDNET = re.compile(r"^n\d{8} (?=.)")
ROLES = ("test", "challenge", "train")
"""In the order in which they are shown."""


@dataclass(frozen=True)
class Choice:
    """Which images are shown.

    Attributes:
        count: of each class of a set, or in all with a challenge; None for what suits.
        seed: of the choice.
    """

    count: int | None = None
    seed: int = 0

    def __post_init__(self):
        if self.count is not None and not 1 <= self.count <= 100:
            raise GradbenchError(f"n={self.count}: a whole number of images from 1 to 100")
        if self.seed < 0:
            raise GradbenchError(f"seed={self.seed}: a whole number from 0")


def load(dataset: Dataset, settings: DataSettings, roles: Sequence[str] = ROLES) -> ImageSet:
    """Return the images of a set for looking at: of the first role that is here.

    Nothing is downloaded.

    Raises:
        MissingData: if none are here, with the ways to have them.
    """
    settings = replace(settings, download=False)
    if dataset.all_splits() == [WHOLE]:
        roles = ("challenge",)  # an undivided set is not divided for looking at it
    reasons = {role: dataset.ready(role, settings) for role in roles if role in dataset.roles}
    role = next((role for role, reason in reasons.items() if reason is None), None)
    if role is not None:
        return dataset.load(role, settings)
    if any(dataset.archives_of(split) for split in dataset.all_splits()):
        raise MissingData(
            f"{dataset.name} is not on this machine: `gradbench data fetch {dataset.name}` brings "
            "it"
        )
    return dataset.load(next(iter(reasons)), settings)  # raises, and names the ways


def title(images: ImageSet) -> str:
    """Return name and split."""
    return f"{images.name} {images.split}"


def label_name(images: ImageSet, label: int) -> str:
    """Return the name of a label without its WordNet id, its number where there are no names."""
    if label < 0:  # labels of a challenge are as they were found, also none at all
        return ""
    return WORDNET.sub("", images.classes[label]) if label < len(images.classes) else str(label)


def some(rows: np.ndarray, count: int, *seed: int) -> np.ndarray:
    """Return a random part of some rows, in their order."""
    order = np.random.default_rng(list(seed)).permutation(len(rows))
    return rows[np.sort(order[:count])]


def spread(images: ImageSet, count: int, seed: int) -> np.ndarray:
    """Return the rows of some images, spread evenly over the classes, class by class."""
    random = np.random.default_rng(seed)
    waiting = [
        list(random.permutation(np.flatnonzero(images.labels == label)))
        for label in random.permutation(np.unique(images.labels))
    ]
    picked: list[int] = []
    while len(picked) < min(count, len(images)):
        for rows in waiting:
            if rows and len(picked) < count:
                picked.append(rows.pop())
    return np.array(sorted(picked, key=lambda row: (images.labels[row], row)))


def originals(images: ImageSet, rows: np.ndarray) -> list[np.ndarray]:
    """Return images as (C, H, W) uint8; files that nobody resampled in their own size."""
    files = images.images
    if not isinstance(files, FileImages) or files.resampling is not None:
        return list(files[rows])
    found = []
    for row in rows:
        files[np.array([row])]  # a file that cannot be read is told as everywhere
        with Image.open(files.paths[row]) as picture:
            found.append(to_array(picture, images.shape[0]))
    return found


def uint8(pixels: np.ndarray) -> np.ndarray:
    """Return pixels for looking at: float ones are rounded to the 1/255 grid."""
    return pixels if pixels.dtype == np.uint8 else to_grid(to_float(pixels)).numpy()


def drawn_as(images: ImageSet) -> str:
    """Say in which size images are shown."""
    files = images.images
    if isinstance(files, FileImages) and files.resampling is None and files.sizes is not None:
        return f"files of {files.native}"
    return magnification(images.shape)
