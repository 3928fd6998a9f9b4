"""A data set: where its images are found, how they are read, and where they can be had."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from gradbench.data.description import DatasetDescription
from gradbench.data.download import archive_path, download_archive
from gradbench.data.files import FileImages
from gradbench.data.imageset import ImageSet
from gradbench.data.labels import check_labels, exclude_classes, overlapping_classes
from gradbench.data.loading import LoadedSplit, build_image_set
from gradbench.data.npz import read_npz, read_npz_header
from gradbench.data.resample import resize_to
from gradbench.data.settings import DataSettings, MissingData
from gradbench.errors import GradbenchError
from gradbench.support.locks import file_lock
from gradbench.support.progress import step

__all__ = ["DataSettings", "Dataset", "MissingData"]


@dataclass(kw_only=True, eq=False)
class Dataset(DatasetDescription):
    """A set of images, looked for under the data root.

    The order: `<root>/<name>/<split>.npz`, then the published files, of which sub-classes know the
    layout (`published_files`, `read_published`), and when no split of a role is on this machine, a
    download. See `DatasetDescription` for the attributes.
    """

    homes: ClassVar[tuple[str, ...]] = (".", "{name}")
    """Folders under the data root in which the published files may lie."""

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
            images = build_image_set(self, self.read(split, settings), split, splits[0])
            if role != "challenge":  # whose labels nobody asks for
                check_labels(images, training=role == "train")
            if self.exclude:
                images = exclude_classes(images, overlapping_classes(self.exclude))
            if role != "challenge" and self.shape is not None:
                images = resize_to(images, self.shape)
        return images

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

    def processing_of(self, images: ImageSet) -> list[dict] | None:
        """Return the steps that the images of `load("challenge", …)` went through.

        Of copies as arrays the configured ones, of files those that sizes and endings suggest;
        None where nothing is known.
        """
        if isinstance(images.images, FileImages):
            return images.images.processing(self.jpeg)
        return self.processing

    def is_local(self, split: str, settings: DataSettings) -> bool:
        """Return whether a split is on this machine, by the names of files alone."""
        return self.location(split, settings) is not None

    def location(self, split: str, settings: DataSettings) -> Path | None:
        """Return the file or folder that a split is read from, None where it is not here."""
        arrays = self._arrays(split, settings)
        if arrays.is_file():
            return arrays
        home = self.home(split, settings)
        return None if home is None else home / self.published_files(split)[0]

    def read(self, split: str, settings: DataSettings) -> LoadedSplit:
        """Read a split that is on this machine."""
        arrays = self._arrays(split, settings)
        if arrays.is_file():
            return read_npz(arrays)
        return self.read_published(split, self.home(split, settings), settings)

    def count(self, split: str, settings: DataSettings) -> tuple[int | None, bool]:
        """Return the images in a split on this machine, and whether its pixels were restored.

        Reads headers only; the count is None where that does not tell.
        """
        arrays = self._arrays(split, settings)
        return read_npz_header(arrays) if arrays.is_file() else (None, False)

    def home(self, split: str, settings: DataSettings) -> Path | None:
        """Return the folder that holds all published files of a split, None if there is none."""
        files = self.published_files(split)
        homes = (settings.root / home.format(name=self.name) for home in self.homes)
        return next((h for h in homes if files and all((h / f).exists() for f in files)), None)

    def published_files(self, split: str) -> Sequence[str]:
        """Return files and folders, relative to a home, by which a split is recognised."""
        return ()

    def read_published(self, split: str, home: Path, settings: DataSettings) -> LoadedSplit:
        """Read the published files of a split from the folder that holds them."""
        raise NotImplementedError(f"{type(self).__name__} reads arrays alone")

    def extra_checks(
        self, split: str, loaded: LoadedSplit, settings: DataSettings
    ) -> Iterable[tuple[str, str, str]]:
        """Return checks of this set alone: subject, verdict and detail of each; see `verify`."""
        return ()

    def checksums(self, split: str, settings: DataSettings) -> dict[Path, tuple[str, str]]:
        """Return path -> (`md5` or `sha256`, checksum) of published files that are here."""
        found = {}
        for archive in self.archives_of(split):
            path = archive_path(archive, settings.root)
            kind = "sha256" if "sha256" in archive else "md5"
            if kind in archive and path.is_file():
                found[path] = kind, archive[kind]
        if home := self.home(split, settings):
            files = [file for file in self.published_files(split) if file in self.md5]
            found |= {home / file: ("md5", self.md5[file]) for file in files}
        return found

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
        unknown = ""
        if not any(self.archives_of(split) for split in splits):
            unknown = "; no download with a checksum is known"
            unknown += f" ({self.terms})" if self.terms else ""
        elif failed:
            ways.append(f"have it downloaded, which failed: {failed}")
        else:
            ways.append("allow its download (data.download=true, GRADBENCH_OFFLINE not set)")
        return MissingData(f"{self.name} is not on this machine: {', or '.join(ways)}{unknown}")

    def _arrays(self, split: str, settings: DataSettings) -> Path:
        return settings.root / self.name / f"{split}.npz"
