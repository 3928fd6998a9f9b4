"""The published archive of CIFAR-10-C as a data set: to be listed, fetched, checked, looked at.

Runs read it by level and beside the clean images, see `challenges/archive.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.raw import Raw
from gradbench.errors import GradbenchError

LEVELS = 5


@dataclass(kw_only=True, eq=False)
class Cifar10C(Dataset):
    """Arrays `<family>.npy`, five levels one after the other, and `labels.npy` for all of them.

    Attributes:
        folder: of the arrays, relative to the data root.
        md5: family (or `labels`) -> checksum of its published file.
        clean: name of the set that the images were made from.
    """

    folder: str = "CIFAR-10-C"
    md5: Mapping[str, str] = field(default_factory=dict)
    clean: str = "cifar10"

    def original(self, split: str, settings: DataSettings) -> Path | None:
        """Return the data root if the arrays of a family lie under it."""
        names = (f"{split}.npy", "labels.npy")
        home = settings.root
        return home if all((home / self.folder / name).is_file() for name in names) else None

    def layout(self, split: str) -> str:
        """Return the array of a family."""
        return f"{self.folder}/{split}.npy"

    def count(self, split: str, settings: DataSettings) -> tuple[int | None, bool]:
        """Return the number of images that an array's header tells."""
        if self.original(split, settings) is None:
            return super().count(split, settings)
        return len(_open(settings.root / self.layout(split))), False

    def checksums(self, split: str, settings: DataSettings) -> dict[Path, tuple[str, str]]:
        """Return the arrays of a family with their published checksums."""
        names = [name for name in (split, "labels") if name in self.md5]
        files = {settings.root / self.folder / f"{name}.npy": self.md5[name] for name in names}
        found = {path: ("md5", md5) for path, md5 in files.items() if path.is_file()}
        return super().checksums(split, settings) | found

    def read_original(self, split: str, home: Path, settings: DataSettings) -> Raw:
        """Return the images of a family at all levels, read when they are asked for."""
        from gradbench.data.imageset import LazyImages

        images, labels = (_open(home / self.layout(name)) for name in (split, "labels"))
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise GradbenchError(
                f"{home / self.layout(split)} is {images.shape} {images.dtype}: images must be "
                "N×H×W×3 uint8"
            )
        if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
            raise GradbenchError(
                f"{home / self.layout('labels')} is {labels.shape} {labels.dtype} for "
                f"{len(images):,} images"
            )
        lazy = LazyImages(
            lambda rows: np.ascontiguousarray(images[rows].transpose(0, 3, 1, 2)),
            (len(images), 3, *images.shape[1:3]),
        )
        return Raw(lazy, labels.astype(np.int64))

    def own_checks(
        self, split: str, raw: Raw, settings: DataSettings
    ) -> Iterator[tuple[str, str, str]]:
        """Compare the labels of the levels with each other and with the clean test set."""
        if len(raw.labels) % LEVELS:
            yield "levels", "differs", f"{len(raw.labels):,} images are not five equal levels"
            return
        levels = raw.labels.reshape(LEVELS, -1)
        if not (levels == levels[0]).all():
            yield "levels", "differs", "the labels are not the same at all levels"
            return
        yield "levels", "ok", f"five, {levels.shape[1]:,} images each"
        from gradbench.data.shelf import known

        clean = known(self.clean)
        if not clean.here("test", settings):
            yield "order", "note", f"not compared: {self.clean} is not here"
        elif np.array_equal(clean.read("test", settings).labels, levels[0]):
            yield "order", "ok", f"labels as in the test set of {self.clean} here"
        else:
            yield "order", "note", f"the test set of {self.clean} here is in another order"


def _open(path: Path) -> np.ndarray:
    """Map an array into memory.

    Raises:
        GradbenchError: if the file is damaged.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TypeError) as fault:
        raise GradbenchError(f"{path} is not a whole .npy file: {fault}") from fault
