"""A data set: which split plays which role, where its images are found, what they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gradbench.data.downloads import Downloads
from gradbench.data.npz import peek, read_npz
from gradbench.data.raw import Raw
from gradbench.data.roles import hold_out
from gradbench.data.settings import DataSettings, MissingData
from gradbench.errors import GradbenchError, unknown
from gradbench.settings import Dataset as Described
from gradbench.support.described import check
from gradbench.support.progress import step

if TYPE_CHECKING:
    from gradbench.data.imageset import ImageSet

__all__ = ["DataSettings", "Dataset", "MissingData"]

STATUSES = ("official", "generated", "regenerated", "part", "stand_in")


@dataclass(kw_only=True, eq=False)
class Dataset(Downloads):
    """A set of images described by configs/dataset/<name>.yaml, looked up under the data root.

    The order: `<root>/<name>/<split>.npz`, the published files (`original`, in sub-classes), and
    when no split of a role is on disk, a download.

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
            it is brought to the in-distribution shape once, by `fit_to`.
        holdout: images of the whole training set that the network is never trained on.
        groups: `image`, or `track` where frames repeat and names read class/track_frame.
        augment: `pad` and `flip` of the training recipe.
        processing: what copies as arrays went through before they had this shape; see
            `processing_of` and `round_trip`.
        jpeg: quality assumed of published files that are JPEG.
        exclude: list of overlapping classes to leave out, a file of gradbench/data/overlaps.
        archives: downloads with `url`, `md5` or `sha256`, folder `to` and the `splits` they hold.
        terms: licence in a line.
        note: what a reader of a row must know of every copy.
        copy_note: what a reader must know of copies as arrays, whose maker chose the size.
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
    terms: str = ""
    note: str = ""
    copy_note: str = ""

    def __post_init__(self):
        for item in fields(self):
            setattr(self, item.name, plain(getattr(self, item.name)))
        check(
            {name: getattr(self, name) for name in ("roles", "augment", "processing", "archives")},
            Described,
            "dataset",
        )
        self.roles = {r: [s] if isinstance(s, str) else s for r, s in self.roles.items()}
        self.classes = tuple(str(name) for name in self.classes)
        if self.shape is not None:
            self.shape = tuple(int(n) for n in self.shape)
            if len(self.shape) != 3 or self.shape[0] not in (1, 3) or min(self.shape) < 1:
                raise GradbenchError(
                    f"dataset.shape={list(self.shape)}: give [channels,height,width] with 1 or 3 "
                    "channels"
                )
        for split in (*self.counts, *self.least):
            if split not in self.every_split():
                raise unknown(f"split of {self.name}", str(split), self.every_split())
        if type(self.holdout) is not int or self.holdout < 0:
            raise GradbenchError(f"dataset.holdout={self.holdout}: a whole number of images from 0")
        if self.status is not None and self.status not in STATUSES:
            raise unknown("status", self.status, STATUSES)
        for value in self.std or ():
            if not value > 0:
                raise GradbenchError(f"dataset.std={self.std}: deviations are above 0")
        if self.groups not in ("image", "track"):
            raise unknown("grouping", self.groups, ("image", "track"))

    def load(self, role: str, settings: DataSettings) -> ImageSet:
        """Return the images that play a role, downloaded where that is needed and allowed.

        Raises:
            MissingData: if they are not here and cannot be had; names the ways to provide them.
            GradbenchError: if the set has no such role or its files are damaged.
        """
        splits = self.splits(role)
        split = next((s for s in splits if self.here(s, settings)), None)
        if split is None:
            split = self._download(splits, settings)
        from gradbench.data.dress import dress

        with step(f"loading {self.name} {split}"):
            images = dress(self, self.read(split, settings), split, splits[0])
            if role != "challenge":  # of which labels are never asked
                from gradbench.data.labels import check_labels

                check_labels(images, training=role == "train")
            if self.exclude:
                from gradbench.data.overlap import exclude, overlap

                images = exclude(images, overlap(self.exclude))
            if role != "challenge" and self.shape is not None:
                from gradbench.data.resample import fit_to

                images = fit_to(images, self.shape)
        return images

    def ready(self, role: str, settings: DataSettings) -> str | None:
        """Return None if `load` finds the images on this machine, else a short reason."""
        if role not in self.roles:
            return f"has no {role} images"
        splits = self.splits(role)
        if any(self.here(split, settings) for split in splits):
            return None
        if any(self.downloads(split) for split in splits):
            return "not here, would be downloaded" if settings.online else "not here, downloads off"
        return "not here, no download known"

    def processing_of(self, images: ImageSet) -> list[dict] | None:
        """Return what the images that `load("challenge", …)` gave went through; see `round_trip`.

        For copies as arrays the configured chain. Published files are read from the originals:
        their usual size, and JPEG of an assumed quality where they are JPEG. None where nothing
        is known.
        """
        from gradbench.data.files import FileImages
        from gradbench.data.processing import as_steps, of_files

        if isinstance(images.images, FileImages):
            return of_files(images.images, self.jpeg)
        return as_steps(self.processing)

    def splits(self, role: str) -> list[str]:
        """Return the splits that may play a role, the preferred one first."""
        if role not in self.roles:
            raise unknown(f"role of {self.name}", role, self.roles)
        return self.roles[role]

    def every_split(self) -> list[str]:
        """Return all splits that some role names."""
        return list(dict.fromkeys(split for splits in self.roles.values() for split in splits))

    def here(self, split: str, settings: DataSettings) -> bool:
        """Return whether a split is on this machine; looks at names of files only."""
        return self._npz(split, settings).is_file() or self.original(split, settings) is not None

    def read(self, split: str, settings: DataSettings) -> Raw:
        """Read a split that is on this machine."""
        path = self._npz(split, settings)
        if path.is_file():
            return read_npz(path)
        return self.read_original(split, self.original(split, settings), settings)

    def where(self, split: str, settings: DataSettings) -> Path | None:
        """Return the file or folder that a split is read from, None where it is not here."""
        path = self._npz(split, settings)
        if path.is_file():
            return path
        home = self.original(split, settings)
        return None if home is None else home / self.layout(split)

    def count(self, split: str, settings: DataSettings) -> tuple[int | None, bool]:
        """Return the images in a split on this machine, and whether its pixels were restored.

        Reads headers only; the count is None where that does not tell.

        Raises:
            GradbenchError: if a copy as arrays is damaged.
        """
        path = self._npz(split, settings)
        return peek(path) if path.is_file() else (None, False)

    def own_checks(
        self, split: str, raw: Raw, settings: DataSettings
    ) -> Iterable[tuple[str, str, str]]:
        """Return what else can be checked of a split: what, verdict, detail; see `verify`."""
        return ()

    def original(self, split: str, settings: DataSettings) -> Path | None:
        """Return the folder that holds the published files of a split, None if there is none."""
        return None

    def read_original(self, split: str, home: Path, settings: DataSettings) -> Raw:
        """Read the published files of a split from the folder that `original` named."""
        raise NotImplementedError(f"{type(self).__name__} reads arrays alone")

    def layout(self, split: str) -> str:
        """Return a path, relative to the data root, by which the published files are known."""
        return ""

    def held_out(self, train: ImageSet, seed: int = 0) -> np.ndarray:
        """Return (N,) bool, True for the training images that the network never sees.

        A copy that holds a part of the training set gives the same share of it.
        """
        known = self.counts.get(train.split, self.least.get(train.split, 0))
        official = max(known, len(train))
        count = round(self.holdout * len(train) / official)
        if count >= len(train):
            raise GradbenchError(
                f"dataset.holdout={self.holdout}: {self.name} has {len(train)} training images, "
                "and some must be left to train on"
            )
        return hold_out(train.labels, train.groups, count, seed)

    def normalisation(self, train: ImageSet) -> tuple[list[float], list[float]]:
        """Return mean and deviation of each channel in [0, 1], measured where not configured."""
        channels = train.shape[0]
        if self.mean is not None and self.std is not None:
            if len(self.mean) == len(self.std) == channels:
                return list(self.mean), list(self.std)
            if len(self.mean) == len(self.std) == 1:
                return self.mean * channels, self.std * channels
            # those of colours are measured anew where the images are asked for in grey
            if len(self.mean) != len(self.std) or (len(self.mean), channels) != (3, 1):
                raise GradbenchError(
                    f"dataset.mean={self.mean} and dataset.std={self.std}: {train.name} has "
                    f"{channels} channels, so write a number for each, or one for all"
                )
        from gradbench.data.imageset import channel_statistics

        with step(f"mean and deviation of {train.name} {train.split}"):
            return channel_statistics(train)

    def _npz(self, split: str, settings: DataSettings) -> Path:
        return settings.root / self.name / f"{split}.npz"


def plain(value: Any) -> Any:
    """Return configuration nodes as plain dicts and lists, everything else as it is."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    return value
