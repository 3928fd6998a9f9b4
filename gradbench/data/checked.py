"""The door of image sets: what classes from outside hand over as images.

What they are given is read-only, and what they hand over is looked at whenever it is read, and
named by its content alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.imageset import ImageSet, LazyImages
from gradbench.data.labels import check_labels
from gradbench.errors import Faulty
from gradbench.support.calling import calling, reseeded
from gradbench.support.sources import outside

TRIED = 32
"""Images that are read beforehand, and some of them twice."""


def load(dataset: Dataset, role: str, settings: DataSettings) -> ImageSet:
    """Return the images that play a role in a data set, see `Dataset.load`.

    Raises:
        MissingData: as there.
        GradbenchError: as there.
        Faulty: if the set's class is from outside, and raises or gives what is no such set.
    """
    if not outside(dataset):
        return dataset.load(role, settings)
    member = f"dataset {dataset.name}: {type(dataset).__qualname__}.load({role!r})"
    with calling(member):
        reseeded(0)  # what draws from the process' numbers is the same in every run
        found = dataset.load(role, settings)
    found = looked_at(found, member, grid=role != "challenge")
    if role != "challenge":
        _check_labels(found, member)
        check_labels(found, training=role == "train")  # a stray one must not decide the classes
    return found


def looked_at(
    found: ImageSet, member: str, shape: Sequence[int] | None = None, grid: bool = False
) -> ImageSet:
    """Return images that a class from outside handed over, checked now and whenever they are read.

    Args:
        found: what it handed over.
        member: names the class and its method in messages.
        shape: (C, H, W) that is due, None for any.
        grid: uint8 is due; otherwise float32 in [0, 1] is valid too.

    Raises:
        Faulty: naming what is due.
    """

    def refuse(what: str) -> Faulty:
        return Faulty(f"{member} gives {what}")

    if not isinstance(found, ImageSet):
        raise refuse(f"{type(found).__name__}: an ImageSet is due")
    images = found.images
    if not isinstance(images, np.ndarray | LazyImages):
        raise refuse(f"images as {type(images).__name__}: an array or LazyImages is due")
    if len(images.shape) != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise refuse(f"images of shape {tuple(images.shape)}: (N, C, H, W) with C 1 or 3 is due")
    if shape is not None and tuple(images.shape[1:]) != tuple(shape):
        raise refuse(
            f"images of shape {tuple(images.shape[1:])}: that of the in-distribution ones is due, "
            f"{tuple(shape)}"
        )
    kinds = (np.uint8,) if grid else (np.uint8, np.float32)
    if images.dtype not in kinds:
        raise refuse(f"images of {images.dtype}: {' or '.join(k.__name__ for k in kinds)} is due")
    labels = found.labels
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise refuse(f"labels as {_kind(labels)}: an array of whole numbers (N,) is due")
    for name in ("sources", "groups"):
        if not isinstance(ids := getattr(found, name), np.ndarray) or ids.dtype.kind != "U":
            raise refuse(f"{name} as {_kind(ids)}: an array of text (N,) is due")
    reader = _Reader(images, member)
    some = np.unique(np.linspace(0, len(images) - 1, TRIED).astype(int))
    pixels = reader(some)
    if pixels.max() <= 1 and pixels.dtype == np.uint8:
        raise refuse("uint8 images without a grey level above 1: 0 to 255 are due")
    for place in {0, len(some) - 1}:
        if not np.array_equal(reader(some[[place]])[0], pixels[place]):
            raise refuse(
                "an image other pixels the second time: draw random numbers from the image's own "
                "number (challenges/counter.py)"
            )
    if type(images) in (np.ndarray, LazyImages) or outside(images):
        # read and digested here: what a class says of its content could be of another version
        images = LazyImages(reader, images.shape, dtype=images.dtype.name)
    return replace(found, images=images, labels=labels.astype(np.int64))


def read_only(images: ImageSet) -> ImageSet:
    """Return images whose arrays cannot be written to, for classes from outside."""
    arrays = {n: getattr(images, n) for n in ("images", "labels", "sources", "groups")}
    views = {n: a.view() for n, a in arrays.items() if isinstance(a, np.ndarray)}
    for view in views.values():
        view.flags.writeable = False
    return replace(images, **views)


def check_held_out(dataset: Dataset, kept: np.ndarray, count: int) -> np.ndarray:
    """Return which training images a data set holds out, checked.

    Raises:
        Faulty: if they are not one truth value for each image.
    """
    if not isinstance(kept, np.ndarray) or kept.dtype != bool or kept.shape != (count,):
        raise Faulty(
            f"dataset {dataset.name}: {type(dataset).__qualname__}.held_out gives {_kind(kept)}: "
            f"an array ({count},) of bool is due"
        )
    return kept


class _Reader:
    """Reads images of a class from outside, and looks at them."""

    def __init__(self, images: np.ndarray | LazyImages, member: str):
        self.images, self.member = images, member

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        with calling(f"{self.member}: reading images"):
            found = self.images[rows]
        due = (len(rows), *self.images.shape[1:])
        if not isinstance(found, np.ndarray) or (found.shape, found.dtype) != (
            due,
            self.images.dtype,
        ):
            raise Faulty(
                f"{self.member} gives images that read as {_kind(found)}: {self.images.dtype} "
                f"{due} is due"
            )
        if found.dtype.kind == "f" and not (found.min() >= 0 and found.max() <= 1):
            raise Faulty(
                f"{self.member} gives pixels from {found.min():.4g} to {found.max():.4g}: floats "
                "are due in [0, 1]"
            )
        return found


def _check_labels(images: ImageSet, member: str) -> None:
    low, high, known = images.labels.min(), images.labels.max(), len(images.classes)
    if low < 0 or (known and high >= known):
        due = f"0 to {known - 1}, one for each of `classes`," if known else "numbers from 0"
        raise Faulty(f"{member} gives labels from {low} to {high}: {due} are due")


def _kind(found) -> str:
    if isinstance(found, np.ndarray):
        return f"{found.dtype} {found.shape}"
    return type(found).__name__
