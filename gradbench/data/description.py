"""The description of a data set: the settings of configs/dataset/<name>.yaml, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradbench.config import DatasetFile
from gradbench.data.imageset import ImageSet, channel_statistics
from gradbench.data.roles import draw_hold_out
from gradbench.errors import GradbenchError, unknown
from gradbench.support.progress import step
from gradbench.support.typed import check_type


@dataclass(kw_only=True, eq=False)
class DatasetDescription:
    """The facts of a data set that hold wherever its images are.

    Attributes:
        name: of the set and of its folder.
        description: one line for `gradbench list`.
        roles: role (`train`, `test`, `challenge`) -> splits in order of preference.
        counts: split -> official number of images; a copy with fewer is `part`.
        least: likewise where only a bound of the official number is known.
        status: overrides the status of every copy, for example `stand_in`.
        classes: names of the labels, used where a copy does not name them.
        mean: of each channel in [0, 1] over the training set; measured where None.
        std: likewise.
        shape: (C, H, W) in which train and test are delivered. A challenge stays as it is, since
            it is resized to the in-distribution shape once, by `resize_to`.
        holdout: images of the whole training set that the network is never trained on.
        groups: `image`, or `track` where frames repeat and names read class/track_frame.
        augment: `pad` and `flip` of the training recipe.
        processing: resampling and JPEG that copies as arrays went through before they had this
            shape, a step or a list of steps; see `resample.round_trip`.
        jpeg: quality assumed of published files that are JPEG.
        exclude: list of overlapping classes to leave out, a file of gradbench/data/overlaps.
        archives: downloads with `url`, `md5` or `sha256`, folder `to` and the `splits` they hold.
        md5: published file, as `Dataset.published_files` names it -> checksum.
        terms: licence in a line, or how the images can be had.
        note: a remark on every copy, for readers of its rows.
        copy_note: a remark on copies as arrays, whose maker chose the size.
    """

    name: str
    description: str = ""
    roles: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    least: Mapping[str, int] = field(default_factory=dict)
    status: str | None = None
    classes: Sequence[str | int] = ()
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    shape: Sequence[int] | None = None
    holdout: int = 0
    groups: str = "image"
    augment: Mapping[str, Any] = field(default_factory=dict)
    processing: Any = None
    jpeg: int = 75
    exclude: str | None = None
    archives: Sequence[Mapping[str, Any]] = ()
    md5: Mapping[str, str] = field(default_factory=dict)
    terms: str = ""
    note: str = ""
    copy_note: str = ""

    def __post_init__(self):
        checked = ("roles", "augment", "processing", "archives", "holdout", "status", "groups")
        checked += ("shape", "std")
        check_type({name: getattr(self, name) for name in checked}, DatasetFile, "dataset")
        self.roles = {r: [s] if isinstance(s, str) else s for r, s in self.roles.items()}
        steps = [self.processing] if isinstance(self.processing, Mapping) else self.processing
        self.processing = list(steps or ()) or None
        self.classes = tuple(str(name) for name in self.classes)
        if self.shape is not None:
            self.shape = tuple(self.shape)
        for split in (*self.counts, *self.least):
            if split not in self.all_splits():
                raise unknown(f"split of {self.name}", str(split), self.all_splits())

    def splits(self, role: str) -> list[str]:
        """Return the splits that may play a role, the preferred one first."""
        if role not in self.roles:
            raise unknown(f"role of {self.name}", role, self.roles)
        return self.roles[role]

    def all_splits(self) -> list[str]:
        """Return the splits of all roles."""
        return list(dict.fromkeys(split for splits in self.roles.values() for split in splits))

    def archives_of(self, split: str) -> list[Mapping[str, Any]]:
        """Return the archives that hold a split, empty where no download is known."""
        return [a for a in self.archives if split in a.get("splits", [split])]

    def held_out(self, train: ImageSet) -> np.ndarray:
        """Return (N,) bool, True for the training images that the network never sees.

        A copy that holds a part of the training set gives the same share of it.
        """
        known = self.counts.get(train.split, self.least.get(train.split, 0))
        count = round(self.holdout * len(train) / max(known, len(train)))
        if count >= len(train):
            raise GradbenchError(
                f"dataset.holdout={self.holdout}: {self.name} has {len(train)} training images, "
                "and some must be left to train on"
            )
        return draw_hold_out(train.labels, train.groups, count)

    def normalisation(self, train: ImageSet) -> tuple[list[float], list[float]]:
        """Return mean and deviation of each channel in [0, 1], measured where not configured."""
        channels = train.shape[0]
        if self.mean is not None and self.std is not None:
            sizes = len(self.mean), len(self.std)
            if sizes == (channels, channels):
                return list(self.mean), list(self.std)
            if sizes == (1, 1):
                return list(self.mean) * channels, list(self.std) * channels
            # the statistics of colours are no use for images that a run reads as grey
            if (*sizes, channels) != (3, 3, 1):
                raise GradbenchError(
                    f"dataset.mean={self.mean} and dataset.std={self.std}: {train.name} has "
                    f"{channels} channels, so write a number for each, or one for all"
                )
        with step(f"mean and deviation of {train.name} {train.split}"):
            return channel_statistics(train)
