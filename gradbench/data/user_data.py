"""A user's own images: arrays in `.npz` files, or folders of image files."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.files import ignored_files, list_classes, open_files
from gradbench.data.imageset import ImageSet, join_notes
from gradbench.data.loading import WHOLE, LoadedSplit, sources_and_groups
from gradbench.data.npz import read_npz, read_npz_header
from gradbench.data.roles import draw_hold_out
from gradbench.errors import GradbenchError
from gradbench.support.progress import say
from gradbench.support.text import to_name

TEST = 0.2
"""Share of an undivided set that is the test set where one is needed."""
ENDS = 2**15
"""Bytes of the start and of the end of a file that its digest covers."""
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

    Attributes:
        name: of the set; the last part of the path where None.
        path: file or folder, relative to the working folder.
    """

    name: str | None = None
    path: str | None = None
    valid = ""  # sentence on what the path may be

    def __post_init__(self):
        if self.name is None:
            self.name = to_name(Path(self.path).stem if self.path else "")
        super().__post_init__()

    def place(self, split: str) -> Path | None:
        """Return where a split is, None where it is not."""
        raise NotImplementedError(f"{type(self).__name__} keeps no images")

    def read_place(self, place: Path, settings: DataSettings) -> LoadedSplit:
        """Read all images at the place of a split."""
        raise NotImplementedError(f"{type(self).__name__} keeps no images")

    @property
    def undivided(self) -> bool:
        """Whether all images lie in one place."""
        return self.path is not None and self.place(WHOLE) is not None

    def splits(self, role: str) -> list[str]:
        """Return the splits for a role; a challenge takes all of an undivided set."""
        splits = super().splits(role)
        return [WHOLE] if WHOLE in splits and self.undivided else splits

    def all_splits(self) -> list[str]:
        """Return `all` for an undivided set, otherwise the others."""
        splits = super().all_splits()
        if WHOLE not in splits or self.path is None:
            return splits
        return [WHOLE] if self.undivided else [split for split in splits if split != WHOLE]

    def location(self, split: str, settings: DataSettings) -> Path | None:
        """Return the file or folder of a split, of the whole set where it is divided off."""
        if self.path is None:
            return None
        return self.place(split) or (self.place(WHOLE) if split in SPLIT_NAMES else None)

    def count(self, split: str, settings: DataSettings) -> tuple[int | None, bool]:
        """Return the number of images that arrays hold; files are not counted."""
        place = None if self.path is None else self.place(split)
        return read_npz_header(place) if place and place.is_file() else (None, False)

    def read(self, split: str, settings: DataSettings) -> LoadedSplit:
        """Read a split, divided off where the images lie in one place."""
        place = self.place(split)
        if place is not None:
            return self.read_place(place, settings)
        loaded = self.read_place(self.place(WHOLE), settings)
        groups = sources_and_groups(self, loaded, WHOLE)[1]
        test = draw_hold_out(loaded.labels, groups, round(TEST * len(loaded.labels)), seed=0)
        rows = loaded.rows = np.flatnonzero(test if split == "test" else ~test)
        images = loaded.images
        loaded.images = images[rows] if isinstance(images, np.ndarray) else images.take(rows)
        loaded.labels = loaded.labels[rows]
        loaded.names = None if loaded.names is None else loaded.names[rows]
        share = "20 %" if split == "test" else "80 %"
        note = f"{share} of an undivided set, drawn by class, seed 0"
        loaded.note = join_notes(loaded.note, note)
        return loaded

    def processing_of(self, images: ImageSet) -> list[dict] | None:
        """Return the configured steps, else those that image files suggest."""
        return self.processing or super().processing_of(images)

    def ready(self, role: str, settings: DataSettings) -> str | None:
        """Return None if the path holds images for the role, else a short reason."""
        if self.path is None:
            return "set path"
        return None if super().ready(role, settings) is None else f"no {role} in {self.path}"

    def _named(self, split: str, entries: Iterable[Path]) -> Path | None:
        """Return the entry that goes by a name of the split.

        Raises:
            GradbenchError: if two do that differ in nothing but capitals.
        """
        entries = sorted(entries)
        for name in SPLIT_NAMES.get(split, (split,)):
            found = [
                entry for entry in entries if entry.name.removesuffix(".npz").casefold() == name
            ]
            if len(found) > 1:
                raise GradbenchError(
                    f"{self.path} has {' and '.join(entry.name for entry in found)}: which of them "
                    f"holds the {split} images? Keep one"
                )
            if found:
                return found[0]
        return None

    def _missing(self, splits, settings, download) -> str:
        if self.path is None:
            return (
                "path is not set: name your images with dataset.path=/my/images, as a challenge "
                "with 'challenges=[{use: folder, path: /my/images}]'"
            )
        if not Path(self.path).expanduser().exists():
            return f"there is nothing at {self.path}: {self.valid}"
        return f"{self.path} has no {' or '.join(splits)}: {self.valid}"


@dataclass(kw_only=True, eq=False)
class Arrays(UserData):
    """One `.npz` file (all of a set), or a folder with `train.npz` and `test.npz`."""

    valid = "name a .npz file, or a folder with train.npz and test.npz"

    def place(self, split: str) -> Path | None:
        """Return the file of a split."""
        path = Path(self.path).expanduser()
        if split == WHOLE:
            return path if path.is_file() else None
        return self._named(split, path.glob("*.npz")) if path.is_dir() else None

    def read_place(self, place: Path, settings: DataSettings) -> LoadedSplit:
        """Read the arrays."""
        loaded = read_npz(place)
        with zipfile.ZipFile(place) as archive:  # which holds a checksum of the images
            loaded.origin = f"{archive.getinfo('images.npy').CRC:08x}"[:6]
        return loaded


@dataclass(kw_only=True, eq=False)
class Folder(UserData):
    """A tree of image files, class by sub-folder, whole or as `train` and `test`.

    Attributes:
        jpeg: quality that is assumed of JPEG files.
        bits: of grey files with more than 8; None for what the files themselves say.
    """

    jpeg: int = 90
    bits: int | None = None
    valid = "name a folder of images, or one with sub-folders train and test"

    def __post_init__(self):
        if self.bits is not None and (type(self.bits) is not int or not 8 <= self.bits <= 16):
            raise GradbenchError(f"dataset.bits={self.bits}: a whole number from 8 to 16, or null")
        super().__post_init__()

    def place(self, split: str) -> Path | None:
        """Return the folder of a split; a tree that is divided has no split `all`."""
        path = Path(self.path).expanduser()
        if not path.is_dir():
            return None
        with os.scandir(path) as entries:  # which tells folders without looking at each file
            inside = [Path(e.path) for e in entries if e.is_dir() and e.name[0] != "."]
        folders = {name: self._named(name, inside) for name in SPLIT_NAMES}
        known = [folder for folder in folders.values() if folder is not None]
        # `val` among other folders may be a class; the other names are splits in any company
        divided = len(known) > 1 or any(
            len(inside) == 1 or not folder.name.casefold().startswith("val") for folder in known
        )
        if split == WHOLE:
            return None if divided else path
        return folders.get(split) if divided else None

    def read_place(self, place: Path, settings: DataSettings) -> LoadedSplit:
        """List the images; they are decoded when they are indexed.

        Names read class/file, so that with `groups: track` files `track_frame` stay together.
        """
        ignored: Counter[str] = Counter()
        paths, labels, classes = list_classes(place, ignored)
        if ignored:
            say(f"{place}: {ignored_files(ignored)}")
        names = [path.relative_to(place).as_posix() for path in paths]
        return LoadedSplit(
            open_files(paths, self.shape, settings.workers, self.bits),
            labels,
            np.array([name.rpartition(".")[0] for name in names]),
            classes,
            origin=_digest(paths, names),
        )


def _digest(paths: list[Path], names: list[str]) -> str:
    """Return a short digest of files: their names, sizes, starts and ends."""
    sha = hashlib.sha256()
    for path, name in zip(paths, names):
        size = path.stat().st_size
        sha.update(f"{name}\n{size}\n".encode())
        with open(path, "rb") as stream:
            sha.update(stream.read(ENDS))
            stream.seek(max(size - ENDS, 0))
            sha.update(stream.read(ENDS))
    return sha.hexdigest()[:6]
