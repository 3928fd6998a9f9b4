"""Images kept as files, decoded by threads when they are asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from gradbench.data.imageset import LazyImages
from gradbench.data.picture import Fit, fit_picture, upright_size
from gradbench.errors import GradbenchError
from gradbench.support.progress import Progress

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
JPEG = (".jpg", ".jpeg")
SHOWN = 5
"""Unreadable files that are named in a message."""
FAULTS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises on files that are no whole image."""


class FileImages(LazyImages):
    """Images that are decoded from their files, each resampled at most once.

    Args:
        paths: (N,) files.
        shape: (C, H, W) of the images that are read.
        sizes: (N, 2) width and height of every file, or None where all have that of `shape`.
        workers: threads that decode; Pillow lets them run at the same time.
        fit: how files of another size are brought to `shape`, None as long as nobody asked.
    """

    def __init__(
        self,
        paths: np.ndarray,
        shape: Sequence[int],
        sizes: np.ndarray | None = None,
        workers: int = 2,
        fit: Fit | None = None,
    ):
        super().__init__(self._decode, (len(paths), *shape))
        self.paths, self.sizes, self.workers, self.fit = paths, sizes, workers, fit

    @property
    def native(self) -> str:
        """The size of the files in words."""
        if self.sizes is None:
            return f"{self.shape[3]}x{self.shape[2]}"
        least, most = self.sizes.min(0), self.sizes.max(0)
        if (least == most).all():
            return f"{least[0]}x{least[1]}"
        return f"{least[0]}x{least[1]} to {most[0]}x{most[1]}"

    @property
    def usual(self) -> tuple[int, int]:
        """Median height and width of the files, pixels."""
        if self.sizes is None:
            return self.shape[2], self.shape[3]
        width, height = np.median(self.sizes, axis=0)
        return round(float(height)), round(float(width))

    @property
    def jpeg(self) -> bool:
        """Whether most files are JPEG, by their names."""
        return 2 * sum(path.suffix.lower() in JPEG for path in self.paths) > len(self.paths)

    def fits(self, shape: tuple[int, int, int]) -> bool:
        """Return whether images of this shape are what is read, without any resampling now."""
        if self.fit is not None or self.sizes is None:
            return self.shape[1:] == tuple(shape)
        return self.shape[1:] == tuple(shape) and bool((self.sizes == shape[:0:-1]).all())

    def fitted(self, shape: tuple[int, int, int], fit: Fit) -> FileImages:
        """Return the same files, read in another shape straight from the originals."""
        sizes = self.sizes
        if sizes is None:
            sizes = np.tile(np.array(self.shape[:1:-1]), (len(self), 1))
        return FileImages(self.paths, shape, sizes, self.workers, fit)

    def take(self, rows: np.ndarray) -> FileImages:
        """Return the images at the given rows, still unread."""
        sizes = None if self.sizes is None else self.sizes[rows]
        return FileImages(self.paths[rows], self.shape[1:], sizes, self.workers, self.fit)

    def _decode(self, rows: np.ndarray) -> np.ndarray:
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)

        def one(place: int) -> Path | None:
            path = self.paths[rows[place]]
            try:
                with Image.open(path) as picture:
                    if self.sizes is None and upright_size(picture) != self.shape[:1:-1]:
                        return path
                    images[place] = fit_picture(picture, self.shape[1:], self.fit or Fit())
            except FAULTS:
                return path
            return None

        with ThreadPoolExecutor(max(self.workers, 1)) as pool:
            refuse_unreadable(list(pool.map(one, range(len(rows)))))
        return images


def open_files(paths: Sequence[Path], shape: Sequence[int] | None, workers: int) -> FileImages:
    """Read the sizes of image files and return the images, still undecoded.

    Args:
        paths: files.
        shape: (C, H, W) to read them in until another is asked for; None for RGB in the
            commonest size.
        workers: threads.

    Raises:
        GradbenchError: listing the files that cannot be read as images.
    """

    def size(path: Path) -> tuple[int, int] | None:
        try:
            with Image.open(path) as picture:
                return upright_size(picture)
        except FAULTS:
            return None

    sizes = []
    with (
        Progress("reading sizes", len(paths), "files") as progress,
        ThreadPoolExecutor(max(workers, 1)) as pool,
    ):
        for found in pool.map(size, paths):
            sizes.append(found)
            progress.advance(1)
    refuse_unreadable([path if found is None else None for path, found in zip(paths, sizes)])
    sizes = np.array(sizes)
    if shape is None:
        kinds, counts = np.unique(sizes, axis=0, return_counts=True)
        width, height = kinds[counts.argmax()]
        shape = (3, int(height), int(width))
    return FileImages(np.array(paths, dtype=object), shape, sizes, workers)


def refuse_unreadable(faults: Sequence[Path | None]) -> None:
    """Raise the error that lists the files among `faults`; None stands for a good file."""
    bad = [str(path) for path in faults if path is not None]
    if bad:
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise GradbenchError(
            f"{len(bad)} of {len(faults)} files cannot be read as images of this set: "
            f"{', '.join(bad[:SHOWN])}{more}"
        )


def list_images(folder: Path) -> list[Path]:
    """Return every image file under a folder in the order of its path, hidden ones left out."""
    return [path for path in list_entries(folder) if os.path.isfile(path)]


def list_entries(folder: Path) -> list[Path]:
    """Return whatever has an image's suffix under a folder, in the order of its path.

    Links that lead nowhere, pipes and folders that cannot be looked through are among it, so that
    a caller can name them; hidden files and folders, and linked folders, are left out.
    """
    found: list[Path] = []
    closed: list[OSError] = []
    for at, folders, files in os.walk(folder, onerror=closed.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(at, name)
            for name in files
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
        ]
    found += [Path(fault.filename) for fault in closed]
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def list_classes(folder: Path) -> tuple[list[Path], np.ndarray, tuple[str, ...]]:
    """Return the images of a folder, their labels and the class names.

    The class of an image is the sub-folder at the top that it lies in; without sub-folders all
    have label 0 and no class has a name.

    Raises:
        GradbenchError: if there is no image, or if images lie beside the class folders.
    """
    paths = list_images(folder)
    if not paths:
        raise GradbenchError(f"{folder} holds no image files ({', '.join(SUFFIXES)})")
    tops = [path.relative_to(folder).parts for path in paths]
    loose = sum(len(parts) == 1 for parts in tops)
    if loose == len(paths):
        return paths, np.zeros(len(paths), np.int64), ()
    if loose:
        raise GradbenchError(
            f"{folder} holds {loose} images beside its class folders: put every image into the "
            "folder of its class, or all of them into one folder"
        )
    classes = sorted({parts[0] for parts in tops})
    return paths, np.array([classes.index(parts[0]) for parts in tops]), tuple(classes)
