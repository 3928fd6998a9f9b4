"""From the images of a split as a source holds them to named images with their provenance."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from gradbench.data.description import DatasetDescription
from gradbench.data.files import FileImages
from gradbench.data.imageset import ImageSet, LazyImages, join_notes, source_ids
from gradbench.errors import GradbenchError

WHOLE = "all"
"""Split of images that are not divided into training and test."""
UNLABELLED = -1
"""Label of an image whose class is not known, as in ODIN's archives; only a challenge has them."""
TRACK = re.compile(r"(.+/.+)_[^_/]+")
"""Names of frames: class/track_frame."""


@dataclass
class LoadedSplit:
    """Images of one split as a source holds them.

    Attributes:
        images: (N, C, H, W) uint8, in memory or read when they are indexed.
        labels: (N,) int64 from 0; `UNLABELLED` where the source has none.
        names: (N,) names in the source, for GTSRB `class/track_frame`; None where there are none.
        classes: names of the labels, empty where the source does not name them.
        groups: (N,) the group of each image, where the source itself knows it.
        copied: a copy as arrays by someone else, who may not say what was done in making it.
        restored: pixels are known only up to an error.
        origin: digest of the content, where the set's name does not tell it from others.
        rows: (N,) rows of the undivided set that these images were taken from; None for all.
        note: a remark on this source.
    """

    images: np.ndarray | LazyImages
    labels: np.ndarray
    names: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    groups: np.ndarray | None = None
    copied: bool = False
    restored: bool = False
    origin: str = ""
    rows: np.ndarray | None = None
    note: str = ""


def build_image_set(
    dataset: DatasetDescription, loaded: LoadedSplit, split: str, preferred: str
) -> ImageSet:
    """Return the images of a split with name, sources, groups, status and note.

    The status is that of the description; otherwise `part` for a copy with fewer images than
    the official number, `regenerated` where pixels were restored or their size was chosen by the
    maker of a copy, else `official`.
    """
    count, least = len(loaded.images), dataset.least.get(split, 0)
    official = dataset.counts.get(split, 0)
    if not count:
        raise GradbenchError(f"{dataset.name}/{split} holds no images")
    resized = loaded.copied and bool(dataset.copy_note)
    in_grey = isinstance(loaded.images, FileImages) and loaded.images.shape[1] == 1
    sources, groups = sources_and_groups(dataset, loaded, split)
    return ImageSet(
        name=dataset.name,
        split=split,
        images=loaded.images,
        labels=loaded.labels,
        sources=sources,
        groups=groups,
        classes=loaded.classes or dataset.classes,
        status=dataset.status
        or copy_status(max(official, least), count, loaded.restored or resized),
        note=join_notes(
            f"split {split} in place of {preferred}" if split != preferred else "",
            f"{count:,} of at least {least:,} images" if count < least else "",
            f"{count:,} of {official:,} images" if count < official else "",
            dataset.note,
            dataset.copy_note if resized else "",
            loaded.note,
            "read as grey" if in_grey else "",
        ),
    )


def copy_status(official: int, count: int, regenerated: bool) -> str:
    """Return the status of a copy: `part`, `regenerated` or `official`.

    >>> copy_status(100, 100, False), copy_status(100, 99, True)
    ('official', 'part')
    """
    if count < official:
        return "part"
    return "regenerated" if regenerated else "official"


def sources_and_groups(
    dataset: DatasetDescription, loaded: LoadedSplit, split: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the source id and the group of every image.

    Images that were divided off an undivided set keep the ids that they have there.
    """
    name = f"{dataset.name}-{loaded.origin}" if loaded.origin else dataset.name
    if loaded.rows is None:
        sources = source_ids(name, split, len(loaded.images))
    else:
        split = WHOLE
        sources = np.array([f"{name}/{WHOLE}/{row}" for row in loaded.rows])
    if loaded.groups is not None:
        return sources, np.array([f"{name}/{split}/{group}" for group in loaded.groups])
    if dataset.groups == "image":
        return sources, sources
    if loaded.names is None:
        raise GradbenchError(
            f"{dataset.name}/{split} has no names (class/track_frame), without which the frames "
            "of a track cannot be kept together"
        )
    tracks = [TRACK.fullmatch(str(frame)) for frame in loaded.names]
    return sources, np.array(
        [f"{name}/{split}/{track[1]}" if track else s for track, s in zip(tracks, sources)]
    )
