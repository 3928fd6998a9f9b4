"""Labels of in-distribution images: counted from 0, and numbered alike in both splits."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gradbench.errors import GradbenchError, unknown

if TYPE_CHECKING:
    from gradbench.data.imageset import ImageSet


def check_labels(images: ImageSet, training: bool) -> None:
    """Refuse labels that are no numbers of classes.

    Args:
        images: a split that is trained or measured on.
        training: its labels decide how many classes the network has, so that a stray one, or an
            identifier in place of a number, must not.

    Raises:
        GradbenchError: if a label is missing, has no class, or most classes would be empty.
    """
    place, labels = f"{images.name}/{images.split}", images.labels
    least, most = int(labels.min()), int(labels.max())
    if least < 0:
        raise GradbenchError(
            f"{place}: labels count from 0, and the least is {least} (images without labels can "
            "only be a challenge)"
        )
    if images.classes:
        if most >= len(images.classes):
            raise GradbenchError(f"{place} has label {most} but {len(images.classes)} classes")
        return
    different = len(np.unique(labels))
    if training and most + 1 > 2 * different:
        raise GradbenchError(
            f"{place} has {different} different labels and the largest is {most}, which would make "
            f"a network of {most + 1} classes: number the classes from 0 to {different - 1}, or "
            "name them all under 'classes'"
        )


def numbered_alike(images: ImageSet, train: ImageSet) -> ImageSet:
    """Return test images with the labels that the training images give to their classes.

    Each split of a user's set numbers its classes for itself: a class without test images, or
    names in another order, would shift all labels after it.

    Args:
        images: test images.
        train: training images.

    Raises:
        GradbenchError: if test images belong to a class that the training images have not.
    """
    place = f"{images.name}/{images.split}"
    if images.classes and train.classes and images.classes != train.classes:
        for names in (images.classes, train.classes):
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise GradbenchError(f"{images.name} has two classes of the name '{twice}'")
        number = {name: label for label, name in enumerate(train.classes)}
        present = np.unique(images.labels)
        for name in (images.classes[label] for label in present):
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
