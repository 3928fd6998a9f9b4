"""Named images on the 1/255 grid, with the source each of them was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from gradbench.support.progress import step

if TYPE_CHECKING:  # torch takes seconds, which lists of data sets do not need
    from torch import Tensor

SHARD = 1000  # images in a shard: the unit in which products are digested, stored and resumed


class LazyImages:
    """Images (N, C, H, W) that are read when they are indexed.

    `read` maps an array of row numbers to a (n, C, H, W) array, uint8 or float32 in [0, 1];
    `digests` are those of the shards where they are known already, so that nothing need be read.
    """

    def __init__(
        self,
        read: Callable[[np.ndarray], np.ndarray],
        shape: Sequence[int],
        digests: Sequence[str] | None = None,
        dtype: str = "uint8",
    ):
        self.read = read
        self.shape = tuple(int(n) for n in shape)
        self.digests = list(digests) if digests is not None else None
        self.dtype = np.dtype(dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        return self.read(np.asarray(rows))

    def take(self, rows: np.ndarray) -> LazyImages:
        """Return the images at the given rows, still unread."""
        return LazyImages(
            lambda inner: self[rows[inner]], (len(rows), *self.shape[1:]), dtype=self.dtype
        )


@dataclass(frozen=True)
class Listed:
    """What is at hand of a published list of images, see `image_lists`."""

    count: int  # images in the list
    at_hand: int  # of them on this machine
    matched: str = ""  # how images were matched with the list, empty where none is at hand


@dataclass(frozen=True)
class ImageSet:
    """Images with labels, source ids and provenance."""

    name: str  # of the set, for example `cifar10`
    split: str
    # (N, C, H, W), uint8, or float32 in [0, 1] where a challenge is not rounded to the grid
    images: np.ndarray | LazyImages
    labels: np.ndarray  # (N,) int64
    sources: np.ndarray  # (N,) text `set/split/index`: the image that each one is or was made from
    # (N,) text; images of one group never stand on two sides of a split: the track or region
    # where frames repeat, otherwise the source
    groups: np.ndarray = field(default=None)  # type: ignore[assignment]
    classes: tuple[str, ...] = ()  # names of the labels, empty where unknown
    status: str = "official"  # or `generated`, `regenerated`, `part`, `stand_in`
    note: str = ""  # for readers of their rows
    listed: Listed | None = None  # of images that a published list names

    def __post_init__(self):
        if self.groups is None:
            object.__setattr__(self, "groups", self.sources)
        sizes = {len(self.images), len(self.labels), len(self.sources), len(self.groups)}
        if len(sizes) != 1:
            raise ValueError(f"{self.name}/{self.split}: images, labels and sources differ in size")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of one image."""
        return tuple(self.images.shape[1:])

    @cached_property
    def digests(self) -> list[str]:
        """SHA-256 of the pixels of every shard of 1,000 images, in order."""
        if isinstance(self.images, LazyImages) and self.images.digests is not None:
            return self.images.digests
        with step(f"reading {self.name} {self.split} for its fingerprint"):
            return [digest_pixels(self.images[rows]) for rows in shards(len(self))]

    @cached_property
    def fingerprint(self) -> str:
        """Digest of pixels, labels and groups: equal for equal content, whatever the path."""
        sha = hashlib.sha256("".join(self.digests).encode())
        sha.update(np.ascontiguousarray(self.labels, dtype=np.int64).tobytes())
        sha.update("\n".join(self.groups.tolist()).encode())
        return sha.hexdigest()

    def select(self, rows: np.ndarray, split: str | None = None) -> ImageSet:
        """Return the images at the given rows, in that order."""
        rows = np.asarray(rows)
        lazy = isinstance(self.images, LazyImages)
        images = self.images.take(rows) if lazy else self.images[rows]
        return replace(
            self,
            split=self.split if split is None else split,
            images=images,
            labels=self.labels[rows],
            sources=self.sources[rows],
            groups=self.groups[rows],
        )


def join(first: ImageSet, second: ImageSet) -> ImageSet:
    """Return two sets of images of one shape as one set, still unread."""
    count = len(first)

    def read(rows: np.ndarray) -> np.ndarray:
        pixels = np.empty((len(rows), *first.shape), first.images.dtype)
        for images, inside, start in (
            (first.images, rows < count, 0),
            (second.images, rows >= count, count),
        ):
            if inside.any():
                pixels[inside] = images[rows[inside] - start]
        return pixels

    both = {
        name: np.concatenate([getattr(first, name), getattr(second, name)])
        for name in ("labels", "sources", "groups")
    }
    images = LazyImages(read, (count + len(second), *first.shape), dtype=first.images.dtype)
    return replace(first, images=images, **both)


def join_notes(*notes: str) -> str:
    """Join the notes that are not empty, in order.

    >>> join_notes("part", "", "grey -> RGB")
    'part; grey -> RGB'
    """
    return "; ".join(filter(None, notes))


def source_ids(name: str, split: str, count: int) -> np.ndarray:
    """Return the ids `name/split/0` to `name/split/count-1`."""
    return np.array([f"{name}/{split}/{i}" for i in range(count)])


def shards(count: int) -> list[slice]:
    """Return the slices of at most 1,000 rows that cover `count` rows.

    >>> shards(2500)
    [slice(0, 1000, None), slice(1000, 2000, None), slice(2000, 2500, None)]
    """
    return [slice(start, min(start + SHARD, count)) for start in range(0, count, SHARD)]


def digest_pixels(pixels: np.ndarray) -> str:
    """Return the SHA-256 of an array's type, shape and bytes."""
    pixels = np.ascontiguousarray(pixels)
    sha = hashlib.sha256(f"{pixels.dtype.str} {pixels.shape}".encode())
    sha.update(pixels)
    return sha.hexdigest()


def to_float(pixels: np.ndarray | Tensor) -> Tensor:
    """Return pixels as float32 in [0, 1]; uint8 is divided by 255, float32 stays as it is."""
    import torch

    if not torch.is_tensor(pixels):
        pixels = torch.as_tensor(np.ascontiguousarray(pixels))
    return pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels.float()


def to_grid(pixels: Tensor) -> Tensor:
    """Round pixels in [0, 1] to uint8 on the 1/255 grid."""
    import torch

    return pixels.mul(255).round_().clamp_(0, 255).to(torch.uint8)


def channel_statistics(images: ImageSet) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel over all pixels, in [0, 1].

    A deviation is at least one grey level, so that it can be divided by.
    """
    first, second = np.zeros(images.shape[0]), np.zeros(images.shape[0])
    for rows in shards(len(images)):
        pixels = to_float(images.images[rows]).numpy().astype(np.float64)
        first += pixels.sum((0, 2, 3))
        second += np.square(pixels).sum((0, 2, 3))
    count = len(images) * images.shape[1] * images.shape[2]
    mean = first / count
    std = np.sqrt(np.maximum(second / count - mean**2, 0))
    return mean.tolist(), np.maximum(std, 1 / 255).tolist()
