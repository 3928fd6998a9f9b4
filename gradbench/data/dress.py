"""Name, sources, groups, status and note of the images that a source handed over."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from gradbench.data.files import FileImages
from gradbench.data.imageset import ImageSet, source_ids
from gradbench.data.raw import WHOLE, Raw, join_notes, standing
from gradbench.errors import GradbenchError

TRACK = re.compile(r"(.+/.+)_[^_/]+")
"""Names of frames: class/track_frame."""


class Described(Protocol):
    """What a data set's configuration tells of its images; see `dataset.Dataset`."""

    name: str
    classes: Sequence[str]
    counts: Mapping[str, int]
    least: Mapping[str, int]
    status: str | None
    groups: str
    note: str
    copy_note: str


def dress(dataset: Described, raw: Raw, split: str, preferred: str) -> ImageSet:
    """Return the images of a split as an ImageSet with its provenance.

    The status is what the data set's configuration says; otherwise `part` for a copy with fewer
    images than the official number, `regenerated` where pixels were restored or their size was
    chosen by the maker of a copy, else `official`.

    Raises:
        GradbenchError: if there is no image, or tracks are asked for and there are no names.
    """
    classes = raw.classes or dataset.classes
    if not len(raw.labels):
        raise GradbenchError(f"{dataset.name}/{split} holds no images")
    official, count = dataset.counts.get(split, 0), len(raw.images)
    copied = raw.copied and bool(dataset.copy_note)
    status = standing(official, count, raw.restored or copied)
    grey = isinstance(raw.images, FileImages) and raw.images.shape[1] == 1
    note = join_notes(
        dataset.note, dataset.copy_note if copied else "", raw.note, "read as grey" if grey else ""
    )
    if status == "part":
        note = join_notes(f"{count:,} of {official:,} images", note)
    if count < dataset.least.get(split, 0):
        status = "part"
        note = join_notes(f"{count:,} of at least {dataset.least[split]:,} images", note)
    if split != preferred:
        note = join_notes(f"split {split} in place of {preferred}", note)
    sources, groups = sources_and_groups(dataset, raw, split)
    return ImageSet(
        name=dataset.name,
        split=split,
        images=raw.images,
        labels=raw.labels,
        sources=sources,
        groups=groups,
        classes=classes,
        status=dataset.status or status,
        note=note,
    )


def sources_and_groups(dataset: Described, raw: Raw, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the source id and the group of every image.

    Images that were divided off an undivided set keep the ids that they have there.

    Raises:
        GradbenchError: if tracks are asked for and there are no names.
    """
    name = f"{dataset.name}-{raw.origin}" if raw.origin else dataset.name
    if raw.rows is None:
        sources = source_ids(name, split, len(raw.images))
    else:
        split = WHOLE
        sources = np.array([f"{name}/{WHOLE}/{row}" for row in raw.rows])
    if raw.groups is not None:
        return sources, np.array([f"{name}/{split}/{group}" for group in raw.groups])
    if dataset.groups == "image":
        return sources, sources
    if raw.names is None:
        raise GradbenchError(
            f"{dataset.name}/{split} has no names (class/track_frame), without which the frames "
            "of a track cannot be kept together"
        )
    tracks = [TRACK.fullmatch(str(name)) for name in raw.names]
    found = [f"{name}/{split}/{t[1]}" if t else s for t, s in zip(tracks, sources)]
    return sources, np.array(found)
