"""Images kept as files: found in folders, decoded by threads when they are indexed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from gradbench.data.imageset import LazyImages
from gradbench.data.picture import JPEG, SUFFIXES, Resampling, fit_picture, upright_size
from gradbench.errors import GradbenchError, MissingData
from gradbench.support.progress import Progress

SHOWN = 5  # files, or kinds of files, that are named in a message
LARGEST = 256
"""Pixels of the longer side at which JPEG is imitated; finer traces do not outlive a reduction."""
FAULTS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""The exceptions of Pillow on files that are no whole image."""


@dataclass(eq=False)
class FileImages(LazyImages):
    """Images that are decoded from their files, each resampled at most once."""

    paths: np.ndarray  # (N,) files
    size: Sequence[int]  # (C, H, W) of the images that are read
    sizes: np.ndarray  # (N, 2) width and height of the files
    workers: int = 2  # threads that decode; Pillow lets them run at the same time
    resampling: Resampling | None = None  # None as long as nobody chose a size
    bits: int | None = None  # of grey files with more than 8, see `picture.eight_bits`

    def __post_init__(self):
        super().__init__(self._decode, (len(self.paths), *self.size))

    @property
    def native(self) -> str:
        """The size of the files as text, `32x32` or `20x30 to 64x64`."""
        ends = ["{}x{}".format(*size) for size in (self.sizes.min(0), self.sizes.max(0))]
        return " to ".join(dict.fromkeys(ends))

    def processing(self, quality: int) -> list[dict] | None:
        """Return the steps that imitate what the files went through; see `resample.round_trip`.

        They take clean images to the files' usual size and, where most files are JPEG, through JPEG
        there, whose quality is assumed; the reading itself resamples from that size.
        """
        size = [round(float(side)) for side in np.median(self.sizes, axis=0)[::-1]]
        scale = min(LARGEST / max(size), 1)
        jpeg = 2 * sum(path.suffix.lower() in JPEG for path in self.paths) > len(self.paths)
        step: dict[str, Any] = {}
        if jpeg or tuple(size) != self.shape[2:]:
            step["shape"] = [max(round(side * scale), 1) for side in size]
        if jpeg:
            step["jpeg"] = quality
        return [step] if step else None

    def has_shape(self, shape: tuple[int, int, int]) -> bool:
        """Return whether images of this shape are read already, without any resampling now."""
        other_sizes = self.resampling is None and (self.sizes != shape[:0:-1]).any()
        return self.shape[1:] == tuple(shape) and not other_sizes

    def resized(self, shape: tuple[int, int, int], resampling: Resampling) -> FileImages:
        """Return the same files, read in another shape straight from the originals."""
        return replace(self, size=shape, resampling=resampling)

    def take(self, rows: np.ndarray) -> FileImages:
        """Return the images at the given rows, still unread."""
        return replace(self, paths=self.paths[rows], sizes=self.sizes[rows])

    def _decode(self, rows: np.ndarray) -> np.ndarray:
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)
        resampling = self.resampling or Resampling()

        def decode(number: int) -> None:
            with Image.open(self.paths[rows[number]]) as picture:
                images[number] = fit_picture(picture, self.shape[1:], resampling, self.bits)

        _open_all(decode, range(len(rows)), self.paths[rows], self.workers)
        return images


def open_files(
    paths: Sequence[Path], shape: Sequence[int] | None, workers: int, bits: int | None = None
) -> FileImages:
    """Read the sizes of image files and return the images, still undecoded.

    They have `shape` (C, H, W) until another is asked for; None for RGB in the commonest size.

    Raises:
        GradbenchError: listing the files that cannot be read as images.
    """

    def read_size(path: Path) -> tuple[int, int]:
        with Image.open(path) as picture:
            return upright_size(picture)

    with Progress("reading sizes", len(paths), "files") as progress:
        sizes = np.array(_open_all(read_size, paths, paths, workers, progress))
    if shape is None:
        kinds, counts = np.unique(sizes, axis=0, return_counts=True)
        width, height = kinds[counts.argmax()]
        shape = (3, int(height), int(width))
    return FileImages(np.array(paths, dtype=object), shape, sizes, workers, bits=bits)


def decode_error(fault: BaseException) -> str:
    """Return in a line why a file cannot be read as a picture."""
    if isinstance(fault, UnidentifiedImageError):  # whose text is the path
        return "not a picture that can be read"
    text = getattr(fault, "strerror", None) or str(fault)
    kind = "" if text and isinstance(fault, FAULTS) else f"{type(fault).__name__} "
    return " ".join(f"{kind}{text}".split())


def _open_all(
    use: Callable[[Any], Any],
    items: Sequence,
    paths: Sequence[Path],
    workers: int,
    progress: Progress | None = None,
) -> list:
    """Return the value of a function for every item, in threads; name the files that it refuses."""
    results, bad = [], []
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        futures = [pool.submit(use, item) for item in items]
        for future, path in zip(futures, paths):
            try:
                results.append(future.result())
            except FAULTS as fault:
                bad.append(f"{path} ({decode_error(fault)})")
            if progress is not None:
                progress.advance(1)
    if bad:
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise MissingData(
            f"{len(bad)} of {len(futures)} files cannot be read as images of this set: "
            f"{', '.join(bad[:SHOWN])}{more}"
        )
    return results


def list_entries(folder: Path, ignored: Counter[str] | None = None) -> list[Path]:
    """Return whatever has an image's suffix under a folder, in the order of its path.

    Links that lead nowhere, pipes and folders that cannot be looked through are among it, so that
    a caller can name them; hidden files and folders are left out. Linked folders are looked through
    like others, but for those that lead back to a folder above them. `ignored` counts the other
    files by their suffix.
    """
    entries: list[Path] = []
    closed: list[OSError] = []
    for at, folders, files in os.walk(folder, onerror=closed.append, followlinks=True):
        folders[:] = [n for n in folders if not n.startswith(".") and not _leads_back(at, n)]
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if suffix in SUFFIXES and not name.startswith("."):
                entries.append(Path(at, name))
            elif ignored is not None and not name.startswith("."):
                ignored[suffix] += 1
    entries += [Path(fault.filename) for fault in closed]
    return sorted(entries, key=lambda path: path.relative_to(folder).parts)


def _leads_back(at: str, name: str) -> bool:
    """Return whether a folder is a link to one that it lies in, which would never end."""
    path = os.path.join(at, name)
    target = os.path.realpath(path)
    return os.path.islink(path) and Path(os.path.realpath(at)).is_relative_to(target)


def ignored_files(ignored: Counter[str]) -> str:
    """Return a note on the files of a folder that are no pictures by their endings.

    >>> ignored_files(Counter({".txt": 2, "": 1}))
    '3 other files are passed over, pictures are known by their endings (2 .txt, 1 without one)'
    """
    kinds = ", ".join(f"{n} {suffix or 'without one'}" for suffix, n in ignored.most_common(SHOWN))
    more = ", …" if len(ignored) > SHOWN else ""
    files = "1 other file is" if ignored.total() == 1 else f"{ignored.total():,} other files are"
    return f"{files} passed over, pictures are known by their endings ({kinds}{more})"


def list_images(
    folder: Path, by_folder: bool = True, ignored: Counter[str] | None = None
) -> tuple[list[Path], np.ndarray, tuple[str, ...]]:
    """Return the images of a folder by their paths, their labels and the class names.

    The class of an image is the sub-folder at the top that it lies in; without sub-folders, or
    unless `by_folder`, all have label 0 and no class has a name. For `ignored` see `list_entries`.
    """
    paths = [path for path in list_entries(folder, ignored) if os.path.isfile(path)]
    if not paths:
        raise GradbenchError(f"{folder} holds no image files ({', '.join(SUFFIXES)})")
    parts = [path.relative_to(folder).parts for path in paths]
    loose = sum(len(names) == 1 for names in parts)
    if not by_folder or loose == len(paths):
        return paths, np.zeros(len(paths), np.int64), ()
    if loose:
        raise GradbenchError(
            f"{folder} holds {loose} images beside its class folders: put every image into the "
            "folder of its class, or all of them into one folder"
        )
    classes = sorted({names[0] for names in parts})
    return paths, np.array([classes.index(names[0]) for names in parts]), tuple(classes)
