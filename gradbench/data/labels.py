"""Labels and classes of images: valid, numbered alike in both splits, without classes left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib import resources

import numpy as np

from gradbench.data.imageset import ImageSet, join_notes
from gradbench.errors import GradbenchError, unknown


def check_labels(labels: np.ndarray, classes: Sequence[str], place: str, training: bool) -> None:
    """Refuse labels (N,) that are no numbers of classes; `place` names the images.

    Those of the `training` images decide how many classes the network has: a stray one, or an
    identifier in place of a number, must not.
    """
    least, most = int(labels.min()), int(labels.max())
    if least < 0:
        raise GradbenchError(
            f"{place}: labels count from 0, and the least is {least} (images without labels can "
            "only be a challenge)"
        )
    if classes:
        if most >= len(classes):
            raise GradbenchError(f"{place} has label {most} but {len(classes)} classes")
        return
    different = len(np.unique(labels))
    if training and most + 1 > 2 * different:
        raise GradbenchError(
            f"{place} has {different} different labels and the largest is {most}, which would make "
            f"a network of {most + 1} classes: number the classes from 0 to {different - 1}, or "
            "name them all under 'classes'"
        )


def match_labels(images: ImageSet, train: ImageSet) -> ImageSet:
    """Return test images with the labels that the training images give to their classes.

    Each split of a user's set numbers its classes for itself: a class without test images, or
    names in another order, would shift all labels after it. Classes without training images are
    refused.
    """
    place = f"{images.name}/{images.split}"
    if images.classes and train.classes and images.classes != train.classes:
        for names in (images.classes, train.classes):
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise GradbenchError(f"{images.name} has two classes of the name '{twice}'")
        number = {name: label for label, name in enumerate(train.classes)}
        for name in (images.classes[label] for label in np.unique(images.labels)):
            if name not in number:
                raise unknown(f"training class for images of {place}", name, train.classes)
        table = np.array([number.get(name, -1) for name in images.classes])
        return replace(images, labels=table[images.labels], classes=train.classes)
    count = len(train.classes) or int(train.labels.max()) + 1
    most = int(images.labels.max())
    if most >= count:
        raise GradbenchError(
            f"{place} has label {most}, the training images have labels 0 to {count - 1}: number "
            "the classes of both alike"
        )
    return images


def overlapping_classes(name: str) -> list[str]:
    """Return the ids of classes that another set has too: a file of gradbench/data/overlaps.

    Its lines read id, words, class of the other set, separated by tabs.
    """
    folder = resources.files("gradbench.data") / "overlaps"
    names = [entry.name.removesuffix(".txt") for entry in folder.iterdir()]
    if name not in names:
        raise unknown("list of overlapping classes", name, names)
    lines = (folder / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line.split("\t")[0] for line in lines if line and not line.startswith("#")]


def exclude_classes(images: ImageSet, classes: Iterable[str]) -> ImageSet:
    """Return the images of other classes than the given ones; sources keep their numbers.

    A class is given by its name, or by the first word of it, by which `n01443537` is the class
    `n01443537 goldfish` of Tiny ImageNet.
    """
    place = f"{images.name}/{images.split}"
    if not images.classes or images.labels.min() < 0:
        raise GradbenchError(
            f"{place} has images without labels or names of classes, so none can be left out"
        )
    labels = {name.split()[0]: label for label, name in enumerate(images.classes)}
    labels |= {name: label for label, name in enumerate(images.classes)}
    dropped = set()
    for name in classes:
        if name not in labels:
            raise unknown(f"class of {images.name}", name, images.classes)
        dropped.add(labels[name])
    keep = np.flatnonzero(~np.isin(images.labels, list(dropped)))
    note = f"without {len(dropped)} classes, {len(images) - len(keep):,} images left out"
    return replace(images.select(keep), note=join_notes(images.note, note))
