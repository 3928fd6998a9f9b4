"""Published sets that are image files in folders."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.files import list_images, open_files
from gradbench.data.loading import LoadedSplit, class_name
from gradbench.data.picture import Resampling
from gradbench.errors import GradbenchError


@dataclass(kw_only=True, eq=False)
class Tree(Dataset):
    """A set of image files, decoded when they are indexed.

    Of the `files` of a split the first is their folder, the others are tables.
    """

    labelled: bool = True  # the class of an image is its sub-folder
    damaged: Sequence[str] = ()  # published files that are no images, and are left out

    def read_published(self, split: str, home: Path, settings: DataSettings) -> LoadedSplit:
        """Return the files of a split, still undecoded."""
        loaded, paths = self.listing(split, *(home / file for file in self.files[split]))
        loaded.images = open_files(paths, self.shape, settings.workers)
        return loaded

    def listing(self, split: str, folder: Path, *tables: Path) -> tuple[LoadedSplit, list[Path]]:
        """Return labels and classes of a split, and its files in the same order."""
        paths, labels, classes = list_images(folder, self.labelled)
        names = [path.relative_to(folder) for path in paths]
        rows = [i for i, name in enumerate(names) if name.as_posix() not in self.damaged]
        stems = np.array([names[row].with_suffix("").as_posix() for row in rows])
        return LoadedSplit(None, labels[rows], stems, classes), [paths[row] for row in rows]


class Gtsrb(Tree):
    """Traffic signs: training frames by class and track, test images with a table of classes."""

    def listing(self, split: str, folder: Path, *tables: Path) -> tuple[LoadedSplit, list[Path]]:
        """Return the signs; names read class/track_frame in training."""
        if not tables:
            loaded, paths = super().listing(split, folder)
            loaded.labels = np.array([int(loaded.classes[label]) for label in loaded.labels])
            loaded.classes = ()
            return loaded, paths
        with open(tables[0], newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter=";", skipinitialspace=True))
        paths = [folder / row["Filename"] for row in rows]
        labels = np.array([int(row["ClassId"]) for row in rows])
        return LoadedSplit(None, labels, np.array([path.stem for path in paths])), paths


class TinyImagenet(Tree):
    """Tiny ImageNet as published; labels are places in the sorted list of WordNet ids."""

    def listing(self, split: str, folder: Path, *tables: Path) -> tuple[LoadedSplit, list[Path]]:
        """Return the training images, or the validation images by number as `test`."""
        top = folder.parents[1 if split == "test" else 0]
        ids = sorted((top / "wnids.txt").read_text().split())
        lines = (top / "words.txt").read_text(encoding="utf-8").splitlines()
        words = dict(line.split("\t", 1) for line in lines if "\t" in line)
        if split == "test":
            table = (top / "val" / "val_annotations.txt").read_text().splitlines()
            wnids = dict(line.split("\t")[:2] for line in table if line)
            names = sorted(wnids, key=lambda name: int(name.split("_")[1].split(".")[0]))
            paths = [folder / name for name in names]
            labels = [ids.index(wnids[name]) for name in names]
        else:
            loaded, paths = super().listing(split, folder)
            labels = [ids.index(loaded.classes[label]) for label in loaded.labels]
        classes = tuple(class_name(wnid, words.get(wnid, "")) for wnid in ids)
        return LoadedSplit(None, np.array(labels), classes=classes), paths


class ImagenetSamples(Tree):
    """One picture of each of many of ImageNet's 1,000 classes, with a table `labels.csv`.

    Every third one, in the order of the table, is a training image. Pictures are read as networks
    of ImageNet expect them: their central square, resampled by a bicubic filter.
    """

    def read_published(self, split: str, home: Path, settings: DataSettings) -> LoadedSplit:
        """Return the files of a split, still undecoded."""
        loaded = super().read_published(split, home, settings)
        loaded.images = loaded.images.resized(self.shape, Resampling("bicubic", mode="crop"))
        return loaded

    def listing(self, split: str, folder: Path, *tables: Path) -> tuple[LoadedSplit, list[Path]]:
        """Return the pictures with ImageNet's labels; torchvision knows the classes' names."""
        from torchvision.models import (
            ResNet18_Weights,
        )  # and torch: seconds, which lists do not need

        with open(tables[0], newline="", encoding="utf-8") as stream:
            table = list(csv.DictReader(stream))
        rows = [row for i, row in enumerate(table) if (i % 3 == 0) == (split == "train")]
        labels = np.array([int(row["imagenet_index"]) for row in rows])
        stems = np.array([Path(row["file"]).stem for row in rows])
        classes = tuple(ResNet18_Weights.DEFAULT.meta["categories"])
        return LoadedSplit(None, labels, stems, classes), [folder / row["file"] for row in rows]


class Places365(Tree):
    """The validation images of Places365 in their 256x256 form."""

    def listing(self, split: str, folder: Path, *tables: Path) -> tuple[LoadedSplit, list[Path]]:
        """Return the images in the order of the published list."""
        images, categories = (table.read_text().split() for table in tables)
        classes = dict(zip(map(int, categories[1::2]), categories[::2]))
        names = tuple(classes[label].lstrip("/") for label in sorted(classes))
        paths = [folder / name.lstrip("/") for name in images[::2]]
        labels = np.array([int(label) for label in images[1::2]])
        return LoadedSplit(None, labels, classes=names), paths


@dataclass(kw_only=True, eq=False)
class OdinArchive(Tree):
    """Ten thousand photographs, reduced by the authors of ODIN (Liang, Li and Srikant 2018).

    `resize` archives hold whole photographs squashed to 32x32 by a filter that is not stated,
    `crop` archives patches of 32x32. A copy is checked against that size, since other reductions
    of the same photographs go by the same folder names.
    """

    labelled: bool = False

    def read_published(self, split: str, home: Path, settings: DataSettings) -> LoadedSplit:
        """Return the files of a split, still undecoded; one of another size is refused."""
        loaded = super().read_published(split, home, settings)
        sizes, (width, height) = loaded.images.sizes, self.shape[:0:-1]
        wrong = np.flatnonzero((sizes != (width, height)).any(1))
        if len(wrong):
            first = wrong[0]
            raise GradbenchError(
                f"{home / self.files[split][0]} is not the archive of {self.name}: {len(wrong):,} "
                f"of {len(sizes):,} images are not {width}x{height}, the first being "
                f"{loaded.images.paths[first].name} of {sizes[first][0]}x{sizes[first][1]}; "
                f"original photographs belong to {self.name.split('_odin_')[0]}"
            )
        return loaded
