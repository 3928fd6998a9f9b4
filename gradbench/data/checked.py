"""The check of images that classes from outside the package hand over.

Such classes receive read-only arrays. Their images are checked whenever they are read, and
named by their content alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.imageset import ImageSet, LazyImages
from gradbench.data.labels import check_labels
from gradbench.errors import Faulty
from gradbench.support.code_keys import is_external
from gradbench.support.external import external_call, seed_process

PROBED = 32  # images that are read beforehand, and some of them twice


def load(dataset: Dataset, role: str, settings: DataSettings) -> ImageSet:
    """Return the images that play a role in a data set, see `Dataset.load`.

    Raises:
        Faulty: if the set's class is from outside, and raises or gives what is no such set.
    """
    if not is_external(dataset):
        return dataset.load(role, settings)
    member = f"dataset {dataset.name}: {type(dataset).__qualname__}.load({role!r})"
    with external_call(member):
        seed_process(0)  # what draws from the process' numbers is the same in every run
        images = dataset.load(role, settings)
    images = check_images(images, member, grid=role != "challenge")
    if role != "challenge":
        low, high, count = images.labels.min(), images.labels.max(), len(images.classes)
        if low < 0 or (count and high >= count):
            due = f"0 to {count - 1}, one for each of `classes`," if count else "numbers from 0"
            raise Faulty(f"{member} gives labels from {low} to {high}: {due} are due")
        # a stray one must not decide the classes
        place = f"{images.name}/{images.split}"
        check_labels(images.labels, images.classes, place, training=role == "train")
    return images


def check_images(
    image_set: ImageSet, member: str, shape: Sequence[int] | None = None, grid: bool = False
) -> ImageSet:
    """Return images of a class from outside, checked now and whenever they are read.

    `member` names the class and its method in messages, `shape` (C, H, W) is due where it is given,
    on the `grid` uint8 alone, otherwise float32 in [0, 1] too.
    """

    def require(valid: Any, fault: str) -> None:
        if not valid:
            raise Faulty(f"{member} gives {fault}")

    require(isinstance(image_set, ImageSet), f"{type(image_set).__name__}: an ImageSet is due")
    images, labels = image_set.images, image_set.labels
    form = f"images as {_form(images)}:"
    require(
        isinstance(images, np.ndarray | LazyImages)
        and len(images.shape) == 4
        and images.shape[1] in (1, 3)
        and len(images),
        f"{form} an array or LazyImages (N, C, H, W) with C 1 or 3 is due",
    )
    due = tuple(images.shape[1:] if shape is None else shape)
    require(tuple(images.shape[1:]) == due, f"{form} the in-distribution shape {due} is due")
    types = ("uint8",) if grid else ("uint8", "float32")
    require(images.dtype in types, f"images of {images.dtype}: {' or '.join(types)} is due")
    for name, kinds, text in (
        ("labels", "iu", "whole numbers"),
        ("sources", "U", "text"),
        ("groups", "U", "text"),
    ):
        array = getattr(image_set, name)
        valid = isinstance(array, np.ndarray) and array.dtype.kind in kinds and array.ndim == 1
        require(valid, f"{name} as {_form(array)}: an array of {text} (N,) is due")

    def read(rows: np.ndarray) -> np.ndarray:
        with external_call(f"{member}: reading images"):
            pixels = images[rows]
        due = f"{images.dtype} {(len(rows), *images.shape[1:])}"
        whole = isinstance(pixels, np.ndarray) and _form(pixels) == due
        require(whole, f"images that read as {_form(pixels)}: {due} is due")
        if pixels.dtype.kind == "f" and not (pixels.min() >= 0 and pixels.max() <= 1):
            low, high = pixels.min(), pixels.max()
            require(False, f"pixels from {low:.4g} to {high:.4g}: floats are due in [0, 1]")
        return pixels

    probed = np.unique(np.linspace(0, len(images) - 1, PROBED).astype(int))
    pixels = read(probed)
    require(
        pixels.max() > 1 or pixels.dtype != np.uint8,
        "uint8 images without a grey level above 1: 0 to 255 are due",
    )
    for place in {0, len(probed) - 1}:
        require(
            np.array_equal(read(probed[[place]])[0], pixels[place]),
            "an image other pixels the second time: draw random numbers from the image's own "
            "number (challenges/counter.py)",
        )
    if type(images) in (np.ndarray, LazyImages) or is_external(images):
        # without the class's own digests, which may be those of an older version
        images_checked = LazyImages(read, images.shape, dtype=images.dtype.name)
        image_set = replace(image_set, images=images_checked)
    return replace(image_set, labels=labels.astype(np.int64))


def read_only(images: ImageSet) -> ImageSet:
    """Return images whose arrays cannot be written to, for classes from outside."""
    arrays = {n: getattr(images, n) for n in ("images", "labels", "sources", "groups")}
    views = {n: a.view() for n, a in arrays.items() if isinstance(a, np.ndarray)}
    for view in views.values():
        view.flags.writeable = False
    return replace(images, **views)


def check_held_out(dataset: Dataset, held_out: np.ndarray, count: int) -> np.ndarray:
    """Return which training images a data set holds out, refused unless it is one bool for each."""
    due = f"bool {(count,)}"
    if not isinstance(held_out, np.ndarray) or _form(held_out) != due:
        raise Faulty(
            f"dataset {dataset.name}: {type(dataset).__qualname__}.held_out gives "
            f"{_form(held_out)}: an array {(count,)} of bool is due"
        )
    return held_out


def _form(value: Any) -> str:
    if isinstance(value, np.ndarray | LazyImages):
        return f"{value.dtype} {value.shape}"
    return type(value).__name__
