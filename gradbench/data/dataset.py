"""A data set: its facts, where its images are, how they are read and where they can be had."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gradbench.config import DatasetFile
from gradbench.data.download import archive_path, download_archive
from gradbench.data.files import FileImages
from gradbench.data.imageset import ImageSet, channel_statistics, join_notes, source_ids
from gradbench.data.labels import check_labels, exclude_classes, overlapping_classes
from gradbench.data.loading import WHOLE, LoadedSplit, read_npz, read_npz_header, refuse_damage
from gradbench.data.resample import resize_to
from gradbench.data.roles import draw_hold_out
from gradbench.errors import GradbenchError, MissingData, unknown
from gradbench.support.code_keys import is_external
from gradbench.support.locks import file_lock
from gradbench.support.progress import step
from gradbench.support.typed import check_type

TRACK = re.compile(r"(.+/.+)_[^_/]+")  # names of frames: class/track_frame


@dataclass(frozen=True)
class DataSettings:
    """Where data sets are and what may be done to get them."""

    root: Path  # of all data sets
    download: bool = True  # those with a known checksum; GRADBENCH_OFFLINE=1 forbids it
    workers: int = 2  # threads that decode image files

    def __post_init__(self):
        object.__setattr__(self, "root", Path(self.root).expanduser())

    @property
    def online(self) -> bool:
        """Whether downloads are allowed."""
        return self.download and os.environ.get("GRADBENCH_OFFLINE", "0") in ("", "0")


@dataclass(kw_only=True, eq=False)
class Dataset:
    """A set of images, described by its file in configs/dataset.

    Images are looked for at `<root>/<name>/<split>.npz`, then as published files, whose layout
    sub-classes know (`published_files`, `read_published`); when no split of a role is on this
    machine, they are downloaded.
    """

    homes: ClassVar[tuple[str, ...]] = (".", "{name}")
    """Folders under the data root in which the published files may lie."""

    name: str  # of the set and of its folder
    description: str = ""  # a line for `gradbench list`
    # role (`train`, `test`, `challenge`) -> splits in order of preference
    roles: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)  # split -> official number of images
    least: Mapping[str, int] = field(default_factory=dict)  # where only a bound of it is known
    status: str | None = None  # of every copy, for example `stand_in`; None for what a copy shows
    classes: Sequence[str | int] = ()  # names of the labels, where a copy does not name them
    mean: Sequence[float] | None = None  # of each channel in [0, 1]; measured where None
    std: Sequence[float] | None = None
    # (C, H, W) of train and test; a challenge takes the in-distribution shape, resampled once
    shape: Sequence[int] | None = None
    holdout: int = 0  # images of the whole training set that the network is never trained on
    groups: str = "image"  # or `track`, where frames repeat and names read class/track_frame
    augment: Mapping[str, Any] = field(default_factory=dict)  # `pad` and `flip` in training
    # steps that copies as arrays went through before they had this shape, see `round_trip`
    processing: Any = None
    jpeg: int = 75  # quality assumed of published files that are JPEG
    exclude: str | None = None  # classes that are left out, a file of gradbench/data/overlaps
    # downloads: `url`, `md5` or `sha256`, folder `to` and the `splits` they hold
    archives: Sequence[Mapping[str, Any]] = ()
    # split -> SHA-256 (the first 16 digits) of the labels in the published order, as little-endian
    # int64: a copy as arrays with these labels is taken to be in that order
    order: Mapping[str, str] = field(default_factory=dict)
    # split -> published files and folders, relative to a home, by which it is recognised
    files: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    md5: Mapping[str, str] = field(default_factory=dict)  # published file -> checksum
    terms: str = ""  # licence in a line, or how the images can be had
    note: str = ""  # on every copy, for readers of its rows
    copy_note: str = ""  # on copies as arrays, whose maker chose the size

    def __post_init__(self):
        checked = {name: getattr(self, name) for name in DatasetFile.__annotations__}
        check_type(checked, DatasetFile, "dataset")
        self.roles = {r: [s] if isinstance(s, str) else s for r, s in self.roles.items()}
        self.files = {s: [f] if isinstance(f, str) else f for s, f in self.files.items()}
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

    # where the images are

    def location(self, split: str, settings: DataSettings) -> Path | None:
        """Return the file or folder that a split is read from, None where it is not here."""
        arrays = self._arrays(split, settings)
        if arrays.is_file():
            return arrays
        home = self.home(split, settings)
        return None if home is None else home / self.published_files(split)[0]

    def is_local(self, split: str, settings: DataSettings) -> bool:
        """Return whether a split is on this machine, by the names of files alone."""
        return self.location(split, settings) is not None

    def home(self, split: str, settings: DataSettings) -> Path | None:
        """Return the folder that holds all published files of a split, None if there is none."""
        files = self.published_files(split)
        homes = (settings.root / home.format(name=self.name) for home in self.homes)
        return next((h for h in homes if files and all((h / f).exists() for f in files)), None)

    def published_files(self, split: str) -> Sequence[str]:
        """Return files and folders, relative to a home, by which a split is recognised."""
        return self.files.get(split) or ()

    def ready(self, role: str, settings: DataSettings) -> str | None:
        """Return None if `load` finds the images on this machine, else a short reason."""
        if role not in self.roles:
            return f"has no {role} images"
        splits = self.splits(role)
        if any(self.is_local(split, settings) for split in splits):
            return None
        if any(self.archives_of(split) for split in splits):
            return "not here, would be downloaded" if settings.online else "not here, downloads off"
        return "not here, no download known"

    def _arrays(self, split: str, settings: DataSettings) -> Path:
        return settings.root / self.name / f"{split}.npz"

    # reading them

    def load(self, role: str, settings: DataSettings) -> ImageSet:
        """Return the images that play a role, downloaded where that is needed and allowed.

        Raises:
            MissingData: if they are not here and cannot be had; names the ways to provide them.
            GradbenchError: if the set has no such role or its files are damaged.
        """
        splits = self.splits(role)
        split = next((s for s in splits if self.is_local(s, settings)), None)
        if split is None:
            split = self.download(splits, settings)
        with step(f"loading {self.name} {split}"):
            images = self.read_split(split, settings, splits[0])[1]
            if role != "challenge":  # whose labels nobody asks for
                place = f"{self.name}/{split}"
                check_labels(images.labels, images.classes, place, training=role == "train")
            if self.exclude:
                images = exclude_classes(images, overlapping_classes(self.exclude))
            if role != "challenge" and self.shape is not None:
                images = resize_to(images, self.shape)
        return images

    def read_split(
        self, split: str, settings: DataSettings, preferred: str = ""
    ) -> tuple[LoadedSplit, ImageSet]:
        """Read a split that is on this machine, also as images with sources, status and note.

        The note says where it stands in for the `preferred` split.
        """
        loaded = self.read(split, settings)
        return loaded, self._image_set(loaded, split, preferred or split)

    def keeps_order(self, loaded: LoadedSplit, split: str) -> bool:
        """Tell whether images of a split are known to be whole and in their published order."""
        if not loaded.copied:
            return True
        labels = np.ascontiguousarray(loaded.labels, dtype="<i8")
        return hashlib.sha256(labels.tobytes()).hexdigest()[:16] == self.order.get(split)

    def read(self, split: str, settings: DataSettings) -> LoadedSplit:
        """Read a split that is on this machine."""
        arrays = self._arrays(split, settings)
        if arrays.is_file():
            return read_npz(arrays)
        home = self.home(split, settings)
        # a class from outside is told the line of its own file instead, see `checked.load`
        damage = refuse_damage(f"the files of {self.name} under {home} are not as published")
        with nullcontext() if is_external(self) else damage:
            loaded = self.read_published(split, home, settings)
            if not len(loaded.labels):
                raise GradbenchError(f"{self.name}/{split} holds no images")
            return loaded

    def read_published(self, split: str, home: Path, settings: DataSettings) -> LoadedSplit:
        """Read the published files of a split from the folder that holds them."""
        raise NotImplementedError(f"{type(self).__name__} reads arrays alone")

    def count(self, split: str, settings: DataSettings) -> tuple[int | None, bool]:
        """Return the images in a split on this machine, and whether its pixels were restored.

        Reads headers only; the count is None where that does not tell.
        """
        arrays = self._arrays(split, settings)
        return read_npz_header(arrays) if arrays.is_file() else (None, False)

    def _image_set(self, loaded: LoadedSplit, split: str, preferred: str) -> ImageSet:
        """Return the images of a split with name, sources, groups, status and note."""
        count = len(loaded.images)
        least, official = self.least.get(split, 0), self.counts.get(split, 0)
        resized = loaded.copied and bool(self.copy_note)
        in_grey = isinstance(loaded.images, FileImages) and loaded.images.shape[1] == 1
        notes = (
            f"split {split} in place of {preferred}" if split != preferred else "",
            f"{count:,} of at least {least:,} images" if count < least else "",
            f"{count:,} of {official:,} images" if count < official else "",
            self.note,
            self.copy_note if resized else "",
            loaded.note,
            "read as grey" if in_grey else "",
        )
        sources, groups = self.sources_and_groups(loaded, split)
        return ImageSet(
            self.name,
            split,
            loaded.images,
            loaded.labels,
            sources,
            groups,
            loaded.classes or self.classes,
            self.copy_status(split, count, loaded.restored or resized),
            join_notes(*notes),
        )

    def copy_status(self, split: str, count: int, regenerated: bool) -> str:
        """Return the status of a copy, unless the set's file gives one to every copy.

        `regenerated` says that pixels were restored, or that the maker of a copy chose their size.
        """
        if self.status:
            return self.status
        if count < max(self.counts.get(split, 0), self.least.get(split, 0)):
            return "part"
        return "regenerated" if regenerated else "official"

    def sources_and_groups(self, loaded: LoadedSplit, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the source id and the group of every image.

        Images that were divided off an undivided set keep the ids that they have there.
        """
        name = f"{self.name}-{loaded.origin}" if loaded.origin else self.name
        if loaded.rows is None:
            sources = source_ids(name, split, len(loaded.images))
        else:
            split = WHOLE
            sources = np.array([f"{name}/{WHOLE}/{row}" for row in loaded.rows])
        if loaded.groups is not None:
            return sources, np.array([f"{name}/{split}/{group}" for group in loaded.groups])
        if self.groups == "image":
            return sources, sources
        if loaded.names is None:
            raise GradbenchError(
                f"{self.name}/{split} has no names (class/track_frame), without which the frames "
                "of a track cannot be kept together"
            )
        tracks = [TRACK.fullmatch(str(frame)) for frame in loaded.names]
        return sources, np.array(
            [f"{name}/{split}/{track[1]}" if track else s for track, s in zip(tracks, sources)]
        )

    def fit_files(self, images: FileImages) -> FileImages:
        """Return image files as the set reads them; others than the usual way are its class's."""
        return images

    # facts about them

    def processing_of(self, images: ImageSet) -> list[dict] | None:
        """Return the steps that the images of `load("challenge", …)` went through.

        Of copies as arrays the configured ones, of files those that sizes and endings suggest;
        None where nothing is known.
        """
        if isinstance(images.images, FileImages):
            return images.images.processing(self.jpeg)
        return self.processing

    def held_out(self, train: ImageSet) -> np.ndarray:
        """Return (N,) bool, True for the training images that the network never sees.

        A copy that holds a part of the training set gives the same share of it.
        """
        official = self.counts.get(train.split, self.least.get(train.split, 0))
        count = round(self.holdout * len(train) / max(official, len(train)))
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

    def checksums(self, split: str, settings: DataSettings) -> dict[Path, tuple[str, str]]:
        """Return path -> (`md5` or `sha256`, checksum) of published files that are here."""
        checksums = {}
        for archive in self.archives_of(split):
            path = archive_path(archive, settings.root)
            kind = "sha256" if "sha256" in archive else "md5"
            if path.is_file():
                checksums[path] = kind, archive[kind]
        if home := self.home(split, settings):
            files = [file for file in self.published_files(split) if file in self.md5]
            checksums |= {home / file: ("md5", self.md5[file]) for file in files}
        return checksums

    def extra_checks(
        self, split: str, loaded: LoadedSplit, settings: DataSettings
    ) -> Iterable[tuple[str, str, str]]:
        """Return checks of this set alone: subject, verdict and detail of each; see `verify`."""
        return ()

    # how they can be had

    def download(self, splits: Sequence[str], settings: DataSettings) -> str:
        """Download the published files of the first split that can be had, and return its name.

        Raises:
            MissingData: if no download is known or allowed, or it fails; names the other ways.
        """
        split = next((s for s in splits if self.archives_of(s)), None)
        if split is None or not settings.online:
            raise self.missing(splits, settings)
        try:
            with file_lock(settings.root / f".{self.name}.downloading", f"downloads {self.name}"):
                if self.home(split, settings) is None:  # another process may have downloaded it
                    for archive in self.archives_of(split):
                        download_archive(archive, settings.root)
        except (GradbenchError, OSError) as fault:
            lock = f"{settings.root} cannot be written to: " if isinstance(fault, OSError) else ""
            raise self.missing(splits, settings, f"{lock}{fault}") from fault
        if self.home(split, settings) is None:
            files = " and ".join(self.published_files(split))
            raise GradbenchError(
                f"the download of {self.name} did not bring {files} to {settings.root}"
            )
        return split

    def missing(
        self, splits: Sequence[str], settings: DataSettings, failed: str = ""
    ) -> MissingData:
        """Return the error that names all ways to provide one of some splits."""
        ways = ["put arrays at " + " or ".join(str(self._arrays(s, settings)) for s in splits)]
        if files := self.published_files(splits[0]):
            place = settings.root / self.homes[0].format(name=self.name) / files[0]
            ways.append(f"put the published files at {place}")
        end = ""
        if not any(self.archives_of(split) for split in splits):
            terms = f" ({self.terms})" if self.terms else ""
            end = f"; no download with a checksum is known{terms}"
        elif failed:
            ways.append(f"have it downloaded, which failed: {failed}")
        else:
            ways.append("allow its download (data.download=true, GRADBENCH_OFFLINE not set)")
        return MissingData(f"{self.name} is not on this machine: {', or '.join(ways)}{end}")
