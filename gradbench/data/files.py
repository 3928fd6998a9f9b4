"""Images kept as files, decoded by threads when they are asked for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from gradbench.data.imageset import LazyImages
from gradbench.data.picture import JPEG, SUFFIXES, Fit, fit_picture, upright_size
from gradbench.data.settings import MissingData
from gradbench.errors import GradbenchError
from gradbench.support.progress import Progress

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
        bits: of grey files with more than 8, see `picture.eight_bits`.
    """

    def __init__(
        self,
        paths: np.ndarray,
        shape: Sequence[int],
        sizes: np.ndarray | None = None,
        workers: int = 2,
        fit: Fit | None = None,
        bits: int | None = None,
    ):
        super().__init__(self._decode, (len(paths), *shape))
        self.paths, self.sizes, self.workers, self.fit = paths, sizes, workers, fit
        self.bits = bits

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
        return FileImages(self.paths, shape, sizes, self.workers, fit, self.bits)

    def take(self, rows: np.ndarray) -> FileImages:
        """Return the images at the given rows, still unread."""
        sizes = None if self.sizes is None else self.sizes[rows]
        some = self.paths[rows], self.shape[1:], sizes
        return FileImages(*some, self.workers, self.fit, self.bits)

    def _decode(self, rows: np.ndarray) -> np.ndarray:
        images = np.empty((len(rows), *self.shape[1:]), np.uint8)

        def one(place: int) -> str | None:
            path, size = self.paths[rows[place]], self.shape[:1:-1]
            try:
                with Image.open(path) as picture:
                    if self.sizes is None and upright_size(picture) != size:
                        return f"{path} (not {size[0]}x{size[1]})"
                    fit = self.fit or Fit()
                    images[place] = fit_picture(picture, self.shape[1:], fit, self.bits)
            except FAULTS as fault:
                return f"{path} ({reason(fault)})"
            return None

        with ThreadPoolExecutor(max(self.workers, 1)) as pool:
            refuse_unreadable(list(pool.map(one, range(len(rows)))))
        return images


def open_files(
    paths: Sequence[Path], shape: Sequence[int] | None, workers: int, bits: int | None = None
) -> FileImages:
    """Read the sizes of image files and return the images, still undecoded.

    Args:
        paths: files.
        shape: (C, H, W) to read them in until another is asked for; None for RGB in the
            commonest size.
        workers: threads.
        bits: of grey files with more than 8, see `picture.eight_bits`.

    Raises:
        GradbenchError: listing the files that cannot be read as images.
    """

    def size(path: Path) -> tuple[int, int] | str:
        try:
            with Image.open(path) as picture:
                return upright_size(picture)
        except FAULTS as fault:
            return f"{path} ({reason(fault)})"

    sizes = []
    with (
        Progress("reading sizes", len(paths), "files") as progress,
        ThreadPoolExecutor(max(workers, 1)) as pool,
    ):
        for found in pool.map(size, paths):
            sizes.append(found)
            progress.advance(1)
    refuse_unreadable([found if isinstance(found, str) else None for found in sizes])
    sizes = np.array(sizes)
    if shape is None:
        kinds, counts = np.unique(sizes, axis=0, return_counts=True)
        width, height = kinds[counts.argmax()]
        shape = (3, int(height), int(width))
    return FileImages(np.array(paths, dtype=object), shape, sizes, workers, bits=bits)


def reason(fault: BaseException) -> str:
    """Return in a line why a file cannot be read as a picture."""
    if isinstance(fault, UnidentifiedImageError):
        return "not a picture that can be read"
    text = getattr(fault, "strerror", None) or str(fault)
    kind = "" if text and isinstance(fault, FAULTS) else f"{type(fault).__name__} "
    return " ".join(f"{kind}{text}".split())


def refuse_unreadable(faults: Sequence[str | None]) -> None:
    """Raise the error that lists the faults, each a file and why; None stands for a good file."""
    bad = [fault for fault in faults if fault is not None]
    if bad:
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise MissingData(
            f"{len(bad)} of {len(faults)} files cannot be read as images of this set: "
            f"{', '.join(bad[:SHOWN])}{more}"
        )


def list_images(folder: Path, left: Counter[str] | None = None) -> list[Path]:
    """Return every image file under a folder in the order of its path; see `list_entries`."""
    return [path for path in list_entries(folder, left) if os.path.isfile(path)]


def list_entries(folder: Path, left: Counter[str] | None = None) -> list[Path]:
    """Return whatever has an image's suffix under a folder, in the order of its path.

    Links that lead nowhere, pipes and folders that cannot be looked through are among it, so that
    a caller can name them; hidden files and folders are left out. Linked folders are looked through
    like others, but for those that lead back to a folder above them.

    Args:
        folder: where to look.
        left: takes the number of other files by their suffix.
    """
    found: list[Path] = []
    closed: list[OSError] = []
    for at, folders, files in os.walk(folder, onerror=closed.append, followlinks=True):
        folders[:] = [n for n in folders if not n.startswith(".") and not _leads_back(at, n)]
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if suffix in SUFFIXES and not name.startswith("."):
                found.append(Path(at, name))
            elif left is not None and not name.startswith("."):
                left[suffix] += 1
    found += [Path(fault.filename) for fault in closed]
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def _leads_back(at: str, name: str) -> bool:
    """Return whether a folder is a link to one that it lies in, which would never end."""
    path = os.path.join(at, name)
    if not os.path.islink(path):
        return False
    target, here = os.path.realpath(path), os.path.realpath(at)
    return os.path.commonpath([target, here]) == target


def passed_over(left: Counter[str]) -> str:
    """Return which files of a folder are no pictures by their endings, in words.

    >>> passed_over(Counter({".txt": 2, "": 1}))
    '3 other files are passed over, pictures are known by their endings (2 .txt, 1 without one)'
    """
    kinds = ", ".join(f"{n} {suffix or 'without one'}" for suffix, n in left.most_common(SHOWN))
    more = ", …" if len(left) > SHOWN else ""
    files = "1 other file is" if left.total() == 1 else f"{left.total():,} other files are"
    return f"{files} passed over, pictures are known by their endings ({kinds}{more})"


def list_classes(
    folder: Path, left: Counter[str] | None = None
) -> tuple[list[Path], np.ndarray, tuple[str, ...]]:
    """Return the images of a folder, their labels and the class names.

    The class of an image is the sub-folder at the top that it lies in; without sub-folders all
    have label 0 and no class has a name. `left` is that of `list_entries`.

    Raises:
        GradbenchError: if there is no image, or if images lie beside the class folders.
    """
    paths = list_images(folder, left)
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
