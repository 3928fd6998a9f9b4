"""Published sets that are image files in folders."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.npz import class_name
from gradbench.data.raw import Raw
from gradbench.errors import GradbenchError


@dataclass(kw_only=True, eq=False)
class Tree(Dataset):
    """A set of image files, decoded when they are asked for.

    Attributes:
        folders: split -> folder relative to the data root (or to `<root>/<name>`).
        labelled: whether the class of an image is its sub-folder.
        uniform: whether all files have the size of `shape`; otherwise their sizes are read first.
        damaged: files of the published folder that are no images, and are left out.
    """

    folders: Mapping[str, str] = field(default_factory=dict)
    labelled: bool = True
    uniform: bool = False
    damaged: Sequence[str] = ()

    def original(self, split: str, settings: DataSettings) -> Path | None:
        """Return the folder in which the split's own folder lies."""
        folder = self.folders.get(split)
        for home in (settings.root, settings.root / self.name):
            if folder and all((home / part).exists() for part in (folder, *self.beside(split))):
                return home
        return None

    def read_original(self, split: str, home: Path, settings: DataSettings) -> Raw:
        """Return the files of a split, still undecoded."""
        from gradbench.data.files import FileImages, open_files

        raw, paths = self.listing(split, home)
        if self.uniform:
            files = np.array(paths, dtype=object)
            raw.images = FileImages(files, self.shape, workers=settings.workers)
        else:
            raw.images = open_files(paths, self.shape, settings.workers)
        return raw

    def layout(self, split: str) -> str:
        """Return the folder of a split."""
        return self.folders.get(split, "")

    def beside(self, split: str) -> tuple[str, ...]:
        """Return the files that a split needs besides its folder."""
        return ()

    def listing(self, split: str, home: Path) -> tuple[Raw, list[Path]]:
        """Return labels and classes of a split, and its files in the same order."""
        from gradbench.data.files import list_classes, list_images

        folder = home / self.folders[split]
        if self.labelled:
            paths, labels, classes = list_classes(folder)
        else:
            paths, classes = list_images(folder), ()
            labels = np.zeros(len(paths), np.int64)
        whole = [p.relative_to(folder).as_posix() not in self.damaged for p in paths]
        paths, labels = [p for p, good in zip(paths, whole) if good], labels[whole]
        if not paths:
            raise GradbenchError(f"{folder} holds no image files")
        names = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
        return Raw(None, labels, np.array(names), classes), paths


class Gtsrb(Tree):
    """Traffic signs: training frames by class and track, test images with a table of classes."""

    def beside(self, split: str) -> tuple[str, ...]:
        """Return the table of the test images' classes."""
        return ("gtsrb/GT-final_test.csv",) if split == "test" else ()

    def listing(self, split: str, home: Path) -> tuple[Raw, list[Path]]:
        """Return the signs; names read class/track_frame in training."""
        if split != "test":
            raw, paths = super().listing(split, home)
            raw.labels = np.array([int(raw.classes[label]) for label in raw.labels])
            raw.classes = ()
            return raw, paths
        with open(home / self.beside(split)[0], newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter=";", skipinitialspace=True))
        paths = [home / self.folders[split] / row["Filename"] for row in rows]
        names = np.array([path.stem for path in paths])
        return Raw(None, np.array([int(row["ClassId"]) for row in rows]), names), paths


class TinyImagenet(Tree):
    """Tiny ImageNet as published; labels are places in the sorted list of WordNet ids."""

    def listing(self, split: str, home: Path) -> tuple[Raw, list[Path]]:
        """Return the training images, or the validation images by number as `test`."""
        top = home / "tiny-imagenet-200"
        try:
            ids = sorted((top / "wnids.txt").read_text().split())
            lines = (top / "words.txt").read_text(encoding="utf-8").splitlines()
            words = dict(line.split("\t", 1) for line in lines if "\t" in line)
            if split == "test":
                table = (top / "val" / "val_annotations.txt").read_text().splitlines()
                of = dict(line.split("\t")[:2] for line in table if line)
                names = sorted(of, key=lambda name: int(name.split("_")[1].split(".")[0]))
                paths = [top / "val" / "images" / name for name in names]
                labels = [ids.index(of[name]) for name in names]
            else:
                paths = super().listing(split, home)[1]
                folder = home / self.folders[split]
                labels = [ids.index(path.relative_to(folder).parts[0]) for path in paths]
        except (OSError, ValueError, KeyError, IndexError) as fault:
            raise GradbenchError(f"{top} is not Tiny ImageNet as published: {fault}") from fault
        classes = tuple(class_name(wnid, words.get(wnid, "")) for wnid in ids)
        return Raw(None, np.array(labels), classes=classes), paths


class Places365(Tree):
    """The validation images of Places365 in their 256x256 form."""

    def beside(self, split: str) -> tuple[str, ...]:
        """Return the lists of images and of categories."""
        return ("places365_val.txt", "categories_places365.txt")

    def listing(self, split: str, home: Path) -> tuple[Raw, list[Path]]:
        """Return the images in the order of the published list."""
        images, categories = ((home / name).read_text().split() for name in self.beside(split))
        classes = dict(zip(map(int, categories[1::2]), categories[::2]))
        paths = [home / self.folders[split] / name.lstrip("/") for name in images[::2]]
        names = tuple(classes[label].lstrip("/") for label in sorted(classes))
        return Raw(None, np.array([int(label) for label in images[1::2]]), classes=names), paths
