"""Classes of one data set that another one knows too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from gradbench.data.raw import join_notes
from gradbench.errors import GradbenchError, unknown

if TYPE_CHECKING:
    from gradbench.data.imageset import ImageSet


def overlap(name: str) -> dict[str, str]:
    """Return a committed list of overlapping classes: class id -> class of the other set.

    Args:
        name: a file of gradbench/data/overlaps, for example `tiny_imagenet_cifar10`. Its lines
            read id, words, class of the other set, separated by tabs.
    """
    folder = resources.files("gradbench.data") / "overlaps"
    names = [entry.name.removesuffix(".txt") for entry in folder.iterdir()]
    if name not in names:
        raise unknown("list of overlapping classes", name, names)
    lines = (folder / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return {row[0]: row[2] for row in rows}


def exclude(images: ImageSet, classes: Iterable[str]) -> ImageSet:
    """Return the images whose class is not among the given ones; sources keep their numbers.

    Args:
        images: a set with class names.
        classes: class names, or the first word of a name, by which `n01443537` is the class
            `n01443537 goldfish` of Tiny ImageNet.

    Raises:
        GradbenchError: if the set names no classes, lacks one of these, or nothing would be left.
    """
    if not images.classes:
        raise GradbenchError(
            f"{images.name}/{images.split} does not name its classes, so none can be left out"
        )
    if images.labels.min() < 0:
        raise GradbenchError(
            f"{images.name}/{images.split} has images without labels, so no class can be left out"
        )
    labels = {name.split()[0]: label for label, name in enumerate(images.classes)}
    labels |= {name: label for label, name in enumerate(images.classes)}
    classes = list(classes)
    for name in classes:
        if name not in labels:
            raise unknown(f"class of {images.name}", name, images.classes)
    dropped = sorted({labels[name] for name in classes})
    keep = np.flatnonzero(~np.isin(images.labels, dropped))
    if not len(keep):
        raise GradbenchError(f"{images.name}/{images.split}: no image is left without its classes")
    note = f"without {len(dropped)} classes, {len(images) - len(keep):,} images left out"
    return replace(images.select(keep), note=join_notes(images.note, note))
