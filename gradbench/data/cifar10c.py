"""The published archive of CIFAR-10-C as a data set: to be listed, downloaded, checked, looked at.

Runs read it by level and beside the clean images, see `challenges/archive.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.imageset import LazyImages
from gradbench.data.loading import LoadedSplit, refuse_damage
from gradbench.errors import GradbenchError

FOLDER, LEVELS = "CIFAR-10-C", 5


class Cifar10C(Dataset):
    """Arrays `<family>.npy`, five levels one after the other, and `labels.npy` for all of them."""

    homes = (".",)

    def published_files(self, split: str) -> Sequence[str]:
        """Return the array of a family, and that of the labels."""
        return f"{FOLDER}/{split}.npy", f"{FOLDER}/labels.npy"

    def count(self, split: str, settings: DataSettings) -> tuple[int | None, bool]:
        """Return the number of images by an array's header."""
        home = self.home(split, settings)
        if home is None:
            return super().count(split, settings)
        return len(_open(home / self.published_files(split)[0])), False

    def read_published(self, split: str, home: Path, settings: DataSettings) -> LoadedSplit:
        """Return the images of a family at all levels, read when they are indexed."""
        paths = [home / file for file in self.published_files(split)]
        images, labels = map(_open, paths)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise GradbenchError(
                f"{paths[0]} is {images.shape} {images.dtype}: images must be N×H×W×3 uint8"
            )
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
            raise GradbenchError(
                f"{paths[1]} is {labels.shape} {labels.dtype} for {len(images):,} images"
            )
        lazy = LazyImages(
            lambda rows: np.ascontiguousarray(images[rows].transpose(0, 3, 1, 2)),
            (len(images), 3, *images.shape[1:3]),
        )
        return LoadedSplit(lazy, labels.astype(np.int64))

    def extra_checks(
        self, split: str, loaded: LoadedSplit, settings: DataSettings
    ) -> Iterator[tuple[str, str, str]]:
        """Compare the labels of the levels with each other."""
        each, rest = divmod(len(loaded.labels), LEVELS)
        if rest:
            yield "levels", "differs", f"{len(loaded.labels):,} images are not five equal levels"
        elif (loaded.labels.reshape(LEVELS, -1) != loaded.labels[:each]).any():
            yield "levels", "differs", "the labels are not the same at all levels"
        else:
            yield "levels", "ok", f"five, {each:,} images each"


def _open(path: Path) -> np.ndarray:
    with refuse_damage(f"{path} is not a whole .npy file"):
        return np.load(path, mmap_mode="r", allow_pickle=False)
