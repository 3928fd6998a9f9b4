"""ImageNet, whole or the classes of a benchmark, from the folders in which it is published."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gradbench.data.dataset import DataSettings
from gradbench.data.files import FileImages, list_entries
from gradbench.data.image_folders import Tree
from gradbench.data.image_lists import numbers
from gradbench.data.loading import LoadedSplit
from gradbench.data.picture import Resampling
from gradbench.errors import GradbenchError

NAME = re.compile(r"ILSVRC2012_val_0*([1-9]\d*)")


@dataclass(kw_only=True, eq=False)
class Imagenet(Tree):
    """Training images by class, of each the first `each`, and validation images by number.

    Labels are places in the sorted list of classes. With `subset`, only some classes count: those
    of the arrays `subset/wnids` and `subset/classes` of OpenOOD's lists. A photograph is read as
    networks expect it: the middle seven eighths of its central square.
    """

    subset: str = ""
    each: int | None = None  # training images of a class; None for all

    def read_published(self, split: str, home: Path, settings: DataSettings) -> LoadedSplit:
        """Return the files of a split, still undecoded."""
        loaded = super().read_published(split, home, settings)
        loaded.images = self.fit_files(loaded.images)
        return loaded

    def fit_files(self, images: FileImages) -> FileImages:
        """Return photographs as networks expect them."""
        return images.resized(self.shape, Resampling(mode="centre"))

    def listing(self, split: str, folder: Path, *tables: Path) -> tuple[LoadedSplit, list[Path]]:
        """Return the training images of every class, or the validation images by number."""
        arrays = numbers("openood")
        if split == "train":
            wnids = sorted(path.name for path in folder.iterdir() if path.is_dir())
            if self.subset:
                wnids = arrays[f"{self.subset}/wnids"].tolist()
            due = len(wnids) if self.subset else len(np.unique(arrays["imagenet/labels"]))
            if len(wnids) != due:
                raise GradbenchError(f"{folder} has {len(wnids)} classes, ImageNet has {due:,}")
            of_class = [list_entries(folder / wnid)[: self.each] for wnid in wnids]
            labels = np.repeat(np.arange(len(wnids)), [len(paths) for paths in of_class])
            paths = [path for paths in of_class for path in paths]
            return LoadedSplit(None, labels, classes=tuple(wnids)), paths
        number = {path: NAME.fullmatch(path.stem) for path in list_entries(folder)}
        paths = sorted((p for p in number if number[p]), key=lambda path: int(number[path][1]))
        places = np.array([int(number[path][1]) - 1 for path in paths], int)
        labels = arrays["imagenet/labels"][places].astype(np.int64)
        if self.subset:
            chosen = arrays[f"{self.subset}/classes"]
            rows = np.flatnonzero(np.isin(labels, chosen))
            paths, labels = [paths[row] for row in rows], np.searchsorted(chosen, labels[rows])
        return LoadedSplit(None, labels, np.array([path.stem for path in paths])), paths
