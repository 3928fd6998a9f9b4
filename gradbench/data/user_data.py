"""A user's own images: arrays in `.npz` files, or folders of image files."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.files import ignored_files, list_images, open_files
from gradbench.data.imageset import ImageSet, join_notes
from gradbench.data.loading import WHOLE, LoadedSplit, read_npz, read_npz_header
from gradbench.data.roles import draw_hold_out
from gradbench.errors import GradbenchError, MissingData
from gradbench.support.progress import say
from gradbench.support.text import to_name

TEST = 0.2  # share of an undivided set that is the test set where one is needed
ENDS = 2**15  # bytes of the start and of the end of a file that its digest covers
SPLIT_NAMES = {
    "train": ("train", "training"),
    "test": ("test", "testing", "val", "valid", "validation"),
}
"""Names under which people keep the two splits, in any case; the first one that is there counts."""


@dataclass(kw_only=True, eq=False)
class UserData(Dataset):
    """Images at a path: one place for all of them, or `train` and `test` inside it.

    The two may also be called by another of the names in `SPLIT_NAMES`, `Train` or `validation`.

    Images in one place are divided where training and test images are asked for: a fifth of them,
    drawn by class with whole groups and seed 0, is the test set. Source ids carry a digest of the
    content, so that two sets of one name are told apart and one set at two paths is not.

    Sub-classes know where each split is, `all` alone where the images are not divided
    (`find_places`), and read all images at one of these places (`read_place`).
    """

    name: str | None = None  # the last part of the path where None
    path: str | None = None  # file or folder, relative to the working folder
    valid: ClassVar[str] = ""
    """A sentence on what the path may be."""

    def __post_init__(self):
        if self.name is None:
            self.name = to_name(Path(self.path).stem if self.path else "")
        super().__post_init__()

    def places(self) -> dict[str, Path]:
        """Return where each split is, nothing without a path."""
        return {} if self.path is None else self.find_places(Path(self.path).expanduser())

    def splits(self, role: str) -> list[str]:
        """Return the splits for a role; a challenge takes all of an undivided set."""
        splits = super().splits(role)
        return [WHOLE] if WHOLE in splits and WHOLE in self.places() else splits

    def all_splits(self) -> list[str]:
        """Return `all` for an undivided set, otherwise the others."""
        splits = super().all_splits()
        if WHOLE not in splits or self.path is None:
            return splits
        undivided = WHOLE in self.places()
        return [split for split in splits if (split == WHOLE) == undivided]

    def location(self, split: str, settings: DataSettings) -> Path | None:
        """Return the file or folder of a split, of the whole set where it is divided off."""
        places = self.places()
        return places.get(split) or (places.get(WHOLE) if split in SPLIT_NAMES else None)

    def count(self, split: str, settings: DataSettings) -> tuple[int | None, bool]:
        """Return the number of images that arrays hold; files are not counted."""
        place = self.places().get(split)
        return read_npz_header(place) if place and place.is_file() else (None, False)

    def read(self, split: str, settings: DataSettings) -> LoadedSplit:
        """Read a split, divided off where the images lie in one place."""
        places = self.places()
        if split in places:
            return self.read_place(places[split], settings)
        loaded = self.read_place(places[WHOLE], settings)
        groups = self.sources_and_groups(loaded, WHOLE)[1]
        test = draw_hold_out(loaded.labels, groups, round(TEST * len(loaded.labels)))
        rows = np.flatnonzero(test if split == "test" else ~test)
        if not len(rows):
            raise GradbenchError(
                f"{self.path} holds too few images to divide off a {split} set: {len(test)}"
            )
        images, share = loaded.images, "20 %" if split == "test" else "80 %"
        return replace(
            loaded,
            images=images[rows] if isinstance(images, np.ndarray) else images.take(rows),
            labels=loaded.labels[rows],
            names=None if loaded.names is None else loaded.names[rows],
            rows=rows,
            note=join_notes(loaded.note, f"{share} of an undivided set, drawn by class, seed 0"),
        )

    def processing_of(self, images: ImageSet) -> list[dict] | None:
        """Return the configured steps, else those that image files suggest."""
        return self.processing or super().processing_of(images)

    def ready(self, role: str, settings: DataSettings) -> str | None:
        """Return None if the path holds images for the role, else a short reason."""
        if self.path is None:
            return "set path"
        return None if super().ready(role, settings) is None else f"no {role} in {self.path}"

    def missing(
        self, splits: Sequence[str], settings: DataSettings, failed: str = ""
    ) -> MissingData:
        """Return the error that says what the path lacks."""
        if self.path is None:
            return MissingData(
                "path is not set: name your images with dataset.path=/my/images, as a challenge "
                "with 'challenges=[{use: folder, path: /my/images}]'"
            )
        if not Path(self.path).expanduser().exists():
            return MissingData(f"there is nothing at {self.path}: {self.valid}")
        return MissingData(f"{self.path} has no {' or '.join(splits)}: {self.valid}")


def _named_splits(entries: Sequence[Path]) -> dict[str, Path]:
    """Return the entries of a folder that go by a name of a split; two of one name are refused."""
    places = {}
    for split, names in SPLIT_NAMES.items():
        for name in names:
            same = [e for e in entries if e.name.removesuffix(".npz").casefold() == name]
            if len(same) > 1:
                raise GradbenchError(
                    f"{same[0].parent} has {' and '.join(entry.name for entry in same)}: which of "
                    f"them holds the {split} images? Keep one"
                )
            if same:
                places[split] = same[0]
                break
    return places


@dataclass(kw_only=True, eq=False)
class Arrays(UserData):
    """One `.npz` file (all of a set), or a folder with `train.npz` and `test.npz`."""

    valid = "name a .npz file, or a folder with train.npz and test.npz"

    def find_places(self, path: Path) -> dict[str, Path]:
        """Return the file of each split."""
        return {WHOLE: path} if path.is_file() else _named_splits(sorted(path.glob("*.npz")))

    def read_place(self, place: Path, settings: DataSettings) -> LoadedSplit:
        """Read the arrays."""
        loaded = read_npz(place)
        with zipfile.ZipFile(place) as archive:  # which holds a checksum of the images
            loaded.origin = f"{archive.getinfo('images.npy').CRC:08x}"[:6]
        return loaded


@dataclass(kw_only=True, eq=False)
class Folder(UserData):
    """A tree of image files, class by sub-folder, whole or as `train` and `test`."""

    jpeg: int = 90
    # of grey files with more than 8; None for what the files say
    bits: Annotated[int, Meta(ge=8, le=16)] | None = None
    valid = "name a folder of images, or one with sub-folders train and test"

    def find_places(self, path: Path) -> dict[str, Path]:
        """Return the folder of each split."""
        if not path.is_dir():
            return {}
        with os.scandir(path) as entries:  # which tells folders without looking at each file
            inside = sorted(Path(e.path) for e in entries if e.is_dir() and e.name[0] != ".")
        folders = _named_splits(inside)
        # `val` among other folders may be a class; the other names are splits in any company
        divided = len(folders) > 1 or any(
            len(inside) == 1 or not folder.name.casefold().startswith("val")
            for folder in folders.values()
        )
        return folders if divided else {WHOLE: path}

    def read_place(self, place: Path, settings: DataSettings) -> LoadedSplit:
        """List the images; they are decoded when they are indexed.

        Names read class/file, so that with `groups: track` files `track_frame` stay together.
        """
        ignored: Counter[str] = Counter()
        paths, labels, classes = list_images(place, ignored=ignored)
        if ignored:
            say(f"{place}: {ignored_files(ignored)}")
        names = [path.relative_to(place).as_posix() for path in paths]
        images = open_files(paths, self.shape, settings.workers, self.bits)
        # a digest of the files' names, sizes, starts and ends
        sha = hashlib.sha256()
        for path, name in zip(paths, names):
            size = path.stat().st_size
            sha.update(f"{name}\n{size}\n".encode())
            with open(path, "rb") as stream:
                sha.update(stream.read(ENDS))
                stream.seek(max(size - ENDS, 0))
                sha.update(stream.read(ENDS))
        stems = np.array([name.rpartition(".")[0] for name in names])
        return LoadedSplit(images, labels, stems, classes, origin=sha.hexdigest()[:6])
