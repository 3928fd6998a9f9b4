"""Published lists of images: which images of each set a benchmark measures, and which are at hand.

A benchmark of an in-distribution set is a file `lists/BENCHMARK/SET.yaml`; numbers of single images
stand in `lists/BENCHMARK/numbers.npz`, made by `scripts/image_lists.py` from the published lists.
Where the data root holds the benchmark's own download, its text files and images go before these:
`benchmark_imglist/SET/LIST.txt`, lines of path and label below `images_classic` or
`images_largescale`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import yaml

from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.files import open_files
from gradbench.data.imageset import ImageSet, Listed, join, join_notes
from gradbench.data.labels import check_labels
from gradbench.data.loading import LoadedSplit
from gradbench.data.roles import draw_hold_out
from gradbench.errors import GradbenchError, MissingData, printable, unknown
from gradbench.support.files import is_inside
from gradbench.support.progress import step

FOLDER = Path(__file__).parent / "lists"
TEXTS, IMAGES = "benchmark_imglist", ("images_classic", "images_largescale")
"""Folders of OpenOOD's download."""
BY_FILE, BY_NAME, BY_ORDER, WHOLE, UNKNOWN = "file", "name", "order", "whole", "unknown"
"""How images were matched with a list, in the column `matched`; `whole`: it names all of them."""


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The images of one split that a list names: all, or those of some numbers, or all others.

    Numbers count the split in its published order, or, `by: class`, the images of each class in
    that order, class after class. Where there are names of files too, or alone, they tell the
    images of a copy whose order is not known.
    """

    count: int
    only: str = ""  # arrays of numbers.npz
    without: str = ""
    by: Literal["split", "class"] = "split"


class ImageList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A list of images of one set."""

    file: str  # of its text, without the ending
    splits: dict[str, Part]
    dataset: str = ""
    kind: str = ""  # `near`, `far`, or "" for in-distribution images
    benchmark: str = ""  # and the in-distribution set: openood/cifar10

    @property
    def count(self) -> int:
        """Images in the list."""
        return sum(part.count for part in self.splits.values())

    def load(self, dataset: Dataset, settings: DataSettings) -> ImageSet:
        """Return the listed images that are at hand, with what is known of them as `listed`.

        Splits that are missing are downloaded where that can be.

        Raises:
            MissingData: if none of them is here.
        """
        files = self.read_files(dataset, settings)
        if files is not None:
            return files
        parts = []
        for split, part in self.splits.items():
            try:
                here = (
                    split
                    if dataset.is_local(split, settings)
                    else dataset.download([split], settings)
                )
            except MissingData as reason:
                missing = reason
                continue
            images, rows, matched = self.find(part, here, dataset, settings)
            parts.append((images.select(rows), matched))
        if not parts:
            raise missing
        images, matched = parts[0]
        for other, how in parts[1:]:
            images, matched = join(images, other), matched if matched == how else UNKNOWN
        return self.marked(images, matched)

    def find(
        self, part: Part, split: str, dataset: Dataset, settings: DataSettings
    ) -> tuple[ImageSet, np.ndarray, str]:
        """Return the images of a split, the rows of those in the list, and how they were matched.

        Where it cannot be told which ones these are, it is a class-stratified part of their
        number.
        """
        with step(f"loading {dataset.name} {split}"):
            loaded, images = dataset.read_split(split, settings)
        listed = self._in_list(part, loaded, dataset.keeps_order(loaded, split))
        if listed is not None:
            return images, np.flatnonzero(listed[0]), listed[1]
        return images, _some(images, part.count), UNKNOWN

    def _in_list(
        self, part: Part, loaded: LoadedSplit, in_order: bool
    ) -> tuple[np.ndarray, str] | None:
        """Return which images (N,) of a split are in the list, and how that is known."""
        key = part.only or part.without
        if not key:
            return np.ones(len(loaded.labels), bool), WHOLE
        arrays = numbers(self.benchmark.partition("/")[0])
        names = arrays.get(f"{key}/names")
        if in_order and key in arrays:
            places = np.arange(len(loaded.labels))
            if part.by == "class":
                places = np.argsort(np.argsort(loaded.labels, kind="stable"), kind="stable")
            found, matched = np.isin(places, arrays[key]), BY_ORDER
        elif names is not None and loaded.names is not None:
            own = [name.rpartition("/")[2] for name in loaded.names.tolist()]
            found, matched = np.isin(own, names), BY_NAME
        else:
            return None
        return found == bool(part.only), matched

    def marked(self, images: ImageSet, matched: str) -> ImageSet:
        """Return images with what is known of them: a part of the list says so."""
        listed = Listed(self.count, len(images), matched)
        notes, status = [], images.status
        if len(images) < self.count:
            part = f"{len(images):,} of {self.count:,} images"
            notes += [] if part in images.note else [f"{len(images):,} of a list of {self.count:,}"]
            status = "part" if status == "official" else status
        if matched == UNKNOWN:
            notes.append("which images of the list these are is not known")
            status = "part" if status == "official" else status
        return replace(images, status=status, note=join_notes(images.note, *notes), listed=listed)

    def read_files(self, dataset: Dataset, settings: DataSettings) -> ImageSet | None:
        """Return the images of the benchmark's own download, None where it is not at hand."""
        text = settings.root / TEXTS / self.benchmark.partition("/")[2] / f"{self.file}.txt"
        if not self.file or not text.is_file():
            return None
        try:
            lines = [line.rsplit(maxsplit=1) for line in text.read_text().splitlines() if line]
            names, labels = [name for name, _ in lines], [int(label) for _, label in lines]
        except (OSError, ValueError) as fault:
            raise GradbenchError(
                f"{text} is no list of images: lines of a path and a whole number are due"
            ) from fault
        for name in names:
            if not is_inside(name):
                raise GradbenchError(
                    f"{text} names {printable(name)}: a path below the folder of images is due"
                )
        homes = [settings.root / folder for folder in IMAGES]
        paths = [next((h / n for h in homes if (h / n).is_file()), None) for n in names]
        here = np.array([path is not None for path in paths], bool)
        if not here.any():
            return None
        labels = np.array(labels)[here]
        images = ImageSet(
            dataset.name,
            self.file,
            dataset.fit_files(open_files([p for p in paths if p], dataset.shape, settings.workers)),
            labels,
            np.array([f"{dataset.name}/{name}" for name in np.array(names)[here]]),
            classes=dataset.classes if (labels >= 0).all() else (),
            note=dataset.note,
        )
        # of a training list, whose number nobody compares, all there is is all of it
        own = (
            self
            if self.splits
            else msgspec.structs.replace(self, splits={self.file: Part(len(names))})
        )
        return own.marked(images, BY_FILE)


class BenchmarkFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a file, see above; `near` and `far` by the name of the set."""

    train: ImageList
    test: ImageList
    validation: ImageList
    near: dict[str, ImageList]
    far: dict[str, ImageList]
    shifted: ImageList | None = None


@dataclass(frozen=True)
class Benchmark:
    """The lists of one in-distribution set.

    Attributes:
        test: the images that are measured as normal; `validation` those that never are.
        sets: lists of the out-of-distribution sets, by their names.
        shifted: list of corrupted images that count as normal too, None for none.
    """

    name: str
    train: ImageList
    test: ImageList
    validation: ImageList
    sets: Mapping[str, ImageList] = field(default_factory=dict)
    shifted: ImageList | None = None

    def in_distribution(
        self, dataset: Dataset, settings: DataSettings
    ) -> tuple[ImageSet, ImageSet, ImageSet, ImageSet]:
        """Return the training images, all test images, the listed ones, and the validation images.

        Raises:
            MissingData: if images are missing.
        """
        files = [one.read_files(dataset, settings) for one in (self.test, self.validation)]
        if None not in files:
            train = self.train.read_files(dataset, settings) or dataset.load("train", settings)
            for one in (train, *files):
                place = f"{one.name}/{one.split}"
                check_labels(one.labels, dataset.classes, place, training=one is train)
            listed, others = (replace(one, split="test") for one in files)
            test = replace(join(listed, others), listed=None)
            return replace(train, split="train", listed=None), test, listed, others
        train = dataset.load("train", settings)
        ((split, part),) = self.test.splits.items()
        if not dataset.is_local(split, settings):
            dataset.download([split], settings)
        test, rows, matched = self.test.find(part, split, dataset, settings)
        if matched == UNKNOWN:  # then some must be left for the hold-out
            whole = self.test.count + self.validation.count
            rows = _some(test, len(test) * self.test.count // whole)
        others = np.setdiff1d(np.arange(len(test)), rows)
        return (
            train,
            test,
            self.test.marked(test.select(rows), matched),
            self.validation.marked(test.select(others), matched),
        )


def read_benchmark(name: str, in_dist: str, full_spectrum: bool = False) -> Benchmark:
    """Return the lists of a benchmark for an in-distribution set.

    Raises:
        GradbenchError: if it has none for this set, or none of a full spectrum.
    """
    files = {path.stem: path for path in sorted((FOLDER / name).glob("*.yaml"))}
    if in_dist not in files:
        raise unknown(f"in-distribution set of {name}", in_dist, files)
    content = yaml.safe_load(files[in_dist].read_text(encoding="utf-8"))
    file = msgspec.convert(content, BenchmarkFile)
    own = f"{name}/{in_dist}"

    def named(one: ImageList, dataset: str = in_dist, kind: str = "") -> ImageList:
        return msgspec.structs.replace(one, dataset=dataset, kind=kind, benchmark=own)

    sets = {
        dataset: named(one, dataset, kind)
        for kind in ("near", "far")
        for dataset, one in getattr(file, kind).items()
    }
    if full_spectrum and file.shifted is None:
        raise GradbenchError(f"{own} has no list of shifted images: leave full_spectrum=false")
    shifted = named(file.shifted) if full_spectrum else None
    return Benchmark(
        own, named(file.train), named(file.test), named(file.validation), sets, shifted
    )


@cache
def numbers(name: str) -> Mapping[str, np.ndarray]:
    """Return the arrays of a benchmark: numbers and names of images, classes."""
    with np.load(FOLDER / name / "numbers.npz", allow_pickle=False) as arrays:
        found = dict(arrays)
    return {n: a.astype(str) if a.dtype.kind == "S" else a for n, a in found.items()}


def _some(images: ImageSet, count: int) -> np.ndarray:
    """Return the rows of a class-stratified part, the same ones in every run."""
    if count >= len(images):
        return np.arange(len(images))
    return np.flatnonzero(draw_hold_out(images.labels, images.groups, count))
