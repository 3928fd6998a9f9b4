"""A data set: where its images are found, how they are read, and where they can be had."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradbench.data.description import DatasetDescription
from gradbench.data.download import archive_path, download_archive, one_process
from gradbench.data.files import FileImages
from gradbench.data.imageset import ImageSet
from gradbench.data.labels import check_labels, exclude_classes, overlapping_classes
from gradbench.data.loading import LoadedSplit, build_image_set
from gradbench.data.npz import read_npz, read_npz_header
from gradbench.data.resample import resize_to
from gradbench.data.settings import DataSettings, MissingData
from gradbench.errors import GradbenchError
from gradbench.support.progress import step

__all__ = ["DataSettings", "Dataset", "MissingData"]

NO_DOWNLOAD = "no download with a checksum is known"


@dataclass(kw_only=True, eq=False)
class Dataset(DatasetDescription):
    """A set of images, looked for under the data root.

    The order: `<root>/<name>/<split>.npz`, then the published files, of which sub-classes know the
    layout (`published_folder`, `read_published`, `published_path`), and when no split of a role is
    on this machine, a download. See `DatasetDescription` for the attributes.
    """

    def load(self, role: str, settings: DataSettings) -> ImageSet:
        """Return the images that play a role, downloaded where that is needed and allowed.

        Raises:
            MissingData: if they are not here and cannot be had; names the ways to provide them.
            GradbenchError: if the set has no such role or its files are damaged.
        """
        splits = self.splits(role)
        split = next((s for s in splits if self.is_local(s, settings)), None)
        if split is None:
            split = next((s for s in splits if self.archives_of(s)), splits[0])
            self.download(split, settings, splits)
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

        For copies as arrays the configured steps. Published files are read from the originals:
        their usual size, and JPEG of an assumed quality where they are JPEG. None where nothing
        is known. See `resample.round_trip`.
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
        home = self.published_folder(split, settings)
        return None if home is None else home / self.published_path(split)

    def read(self, split: str, settings: DataSettings) -> LoadedSplit:
        """Read a split that is on this machine."""
        arrays = self._arrays(split, settings)
        if arrays.is_file():
            return read_npz(arrays)
        return self.read_published(split, self.published_folder(split, settings), settings)

    def count(self, split: str, settings: DataSettings) -> tuple[int | None, bool]:
        """Return the images in a split on this machine, and whether its pixels were restored.

        Reads headers only; the count is None where that does not tell.

        Raises:
            GradbenchError: if a copy as arrays is damaged.
        """
        arrays = self._arrays(split, settings)
        return read_npz_header(arrays) if arrays.is_file() else (None, False)

    def published_folder(self, split: str, settings: DataSettings) -> Path | None:
        """Return the folder that holds the published files of a split, None if there is none."""
        return None

    def read_published(self, split: str, home: Path, settings: DataSettings) -> LoadedSplit:
        """Read the published files of a split from the folder that `published_folder` named."""
        raise NotImplementedError(f"{type(self).__name__} reads arrays alone")

    def published_path(self, split: str) -> str:
        """Return a path inside `published_folder` by which the published files are known."""
        return ""

    def extra_checks(
        self, split: str, loaded: LoadedSplit, settings: DataSettings
    ) -> Iterable[tuple[str, str, str]]:
        """Return checks of this set alone: subject, verdict and detail of each; see `verify`."""
        return ()

    def checksums(self, split: str, settings: DataSettings) -> dict[Path, tuple[str, str]]:
        """Return published files of a split that are here and have a known checksum.

        Returns:
            path -> (`md5` or `sha256`, checksum).
        """
        found = {}
        for archive in self.archives_of(split):
            path = archive_path(archive, settings.root)
            kind = "sha256" if "sha256" in archive else "md5"
            if kind in archive and path.is_file():
                found[path] = kind, archive[kind]
        return found

    def check_downloadable(
        self, split: str, settings: DataSettings, among: Sequence[str] = ()
    ) -> None:
        """Raise the error of a split that cannot be downloaded; see `download`."""
        if not self.archives_of(split):
            raise MissingData(self._missing(among or [split], settings, NO_DOWNLOAD))
        if not settings.online:
            how = "allow its download (data.download=true, GRADBENCH_OFFLINE not set)"
            raise MissingData(self._missing(among or [split], settings, how))

    def download(self, split: str, settings: DataSettings, among: Sequence[str] = ()) -> None:
        """Download the published files of a split, unless they are here.

        Args:
            split: to be had.
            settings: where to put it.
            among: splits that would do as well, for messages.

        Raises:
            MissingData: if no download is known or allowed, or it fails; names the other ways.
        """
        self.check_downloadable(split, settings, among)
        try:
            with one_process(settings.root / f".{self.name}.downloading"):
                if self.published_folder(split, settings) is not None:
                    return  # another process downloaded it meanwhile
                for archive in self.archives_of(split):
                    download_archive(archive, settings.root)
        except GradbenchError as fault:
            how = f"have it downloaded, which failed: {fault}"
            raise MissingData(self._missing(among or [split], settings, how)) from fault
        if self.published_folder(split, settings) is None:
            raise GradbenchError(
                f"the download of {self.name} did not bring {self.published_path(split)} to "
                f"{settings.root}"
            )

    def _missing(self, splits: Sequence[str], settings: DataSettings, download: str) -> str:
        """Return the message that names all ways to provide some splits."""
        arrays = " or ".join(str(self._arrays(split, settings)) for split in splits)
        ways = [f"put arrays at {arrays}"]
        if path := self.published_path(splits[0]):
            ways.append(f"put the published files at {settings.root / path}")
        start = f"{self.name} is not on this machine: "
        if download == NO_DOWNLOAD:
            terms = f" ({self.terms})" if self.terms else ""
            return f"{start}{', or '.join(ways)}; {download}{terms}"
        return f"{start}{', or '.join([*ways, download])}"

    def _arrays(self, split: str, settings: DataSettings) -> Path:
        return settings.root / self.name / f"{split}.npz"
