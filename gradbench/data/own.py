"""A user's own images: arrays in `.npz` files, or folders of image files."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.npz import peek, read_npz
from gradbench.data.raw import WHOLE, Raw, join_notes
from gradbench.data.roles import hold_out
from gradbench.errors import GradbenchError
from gradbench.support.names import as_name
from gradbench.support.progress import say

if TYPE_CHECKING:
    from gradbench.data.imageset import ImageSet

TEST = 0.2
"""Share of an undivided set that is the test set where one is needed."""
ENDS = 2**15
HALVES = {
    "train": ("train", "training"),
    "test": ("test", "testing", "val", "valid", "validation"),
}
"""Names under which people keep the two splits, in any case; the first one that is there counts."""


@dataclass(kw_only=True, eq=False)
class _Own(Dataset):
    """Images at a path: one place for all of them, or `train` and `test` inside it.

    The two may also be called by another of the names in `HALVES`, `Train` or `validation`.

    Images in one place are divided where training and test images are asked for: a fifth of them,
    drawn by class with whole groups and seed 0, is the test set. Source ids carry a digest of the
    content, so that two sets of one name are told apart and one set at two paths is not.

    Attributes:
        name: of the set; the last part of the path where None.
        path: file or folder, relative to the working folder.
    """

    name: str | None = None
    path: str | None = None

    def __post_init__(self):
        bits = getattr(self, "bits", None)
        if bits is not None and (type(bits) is not int or not 8 <= bits <= 16):
            raise GradbenchError(f"dataset.bits={bits}: a whole number from 8 to 16, or null")
        if self.name is None:
            self.name = as_name(Path(self.path).stem if self.path else "")
        super().__post_init__()

    def here(self, split: str, settings: DataSettings) -> bool:
        """Return whether the path holds the split."""
        if self.path is None:
            return False
        return self.place(split) is not None or (split in HALVES and self._undivided)

    def splits(self, role: str) -> list[str]:
        """Return the splits for a role; a challenge takes all of an undivided set."""
        wanted = super().splits(role)
        return [WHOLE] if WHOLE in wanted and self.path and self._undivided else wanted

    def every_split(self) -> list[str]:
        """Return `all` for an undivided set, otherwise the others."""
        splits = super().every_split()
        if WHOLE not in splits or self.path is None:
            return splits
        return [WHOLE] if self._undivided else [split for split in splits if split != WHOLE]

    def where(self, split: str, settings: DataSettings) -> Path | None:
        """Return the file or folder of a split, of the whole set where it is divided off."""
        return (self.place(split) or self.place(WHOLE)) if self.here(split, settings) else None

    def count(self, split: str, settings: DataSettings) -> tuple[int | None, bool]:
        """Return the number of images that arrays hold; files are not counted."""
        place = None if self.path is None else self.place(split)
        return peek(place) if place is not None and place.is_file() else (None, False)

    def read(self, split: str, settings: DataSettings) -> Raw:
        """Read a split, divided off where the images lie in one place."""
        place = self.place(split)
        if place is not None:
            return self.read_place(place, settings)
        from gradbench.data.dress import sources_and_groups

        raw = self.read_place(self.place(WHOLE), settings)
        groups = sources_and_groups(self, raw, WHOLE)[1]
        test = hold_out(raw.labels, groups, round(TEST * len(raw.labels)), seed=0)
        raw.rows = np.flatnonzero(test if split == "test" else ~test)
        if isinstance(raw.images, np.ndarray):
            raw.images = raw.images[raw.rows]
        else:
            raw.images = raw.images.take(raw.rows)
        raw.labels = raw.labels[raw.rows]
        raw.names = None if raw.names is None else raw.names[raw.rows]
        share = "20 %" if split == "test" else "80 %"
        raw.note = join_notes(raw.note, f"{share} of an undivided set, drawn by class, seed 0")
        return raw

    def processing_of(self, images: ImageSet) -> list[dict] | None:
        """Return what is configured, else what is seen of image files."""
        from gradbench.data.processing import as_steps

        configured = as_steps(self.processing)
        return super().processing_of(images) if configured is None else configured

    @property
    def _undivided(self) -> bool:
        return self.place(WHOLE) is not None

    def ready(self, role: str, settings: DataSettings) -> str | None:
        """Return None if the path holds images for the role, else what is missing."""
        if self.path is None:
            return "set path"
        return None if super().ready(role, settings) is None else f"no {role} in {self.path}"

    def place(self, split: str) -> Path | None:
        """Return where a split is, None where it is not."""
        raise NotImplementedError(f"{type(self).__name__} keeps no images")

    def _half(self, split: str, entries: Iterable[Path]) -> Path | None:
        """Return the entry that goes by a name of the split.

        Raises:
            GradbenchError: if two do that differ in nothing but capitals.
        """
        entries = sorted(entries)
        for name in HALVES.get(split, (split,)):
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

    def read_place(self, place: Path, settings: DataSettings) -> Raw:
        """Read all images at the place of a split."""
        raise NotImplementedError(f"{type(self).__name__} keeps no images")

    def _ways(self, splits, settings, download) -> str:
        if self.path is None:
            return (
                "path is not set: name your images with dataset.path=/my/images, as a challenge "
                "with 'challenges=[{use: folder, path: /my/images}]'"
            )
        if not Path(self.path).expanduser().exists():
            return f"there is nothing at {self.path}: {self.form}"
        return f"{self.path} has no {' or '.join(splits)}: {self.form}"


@dataclass(kw_only=True, eq=False)
class Arrays(_Own):
    """One `.npz` file (all of a set), or a folder with `train.npz` and `test.npz`."""

    form = "name a .npz file, or a folder with train.npz and test.npz"

    def place(self, split: str) -> Path | None:
        """Return the file of a split."""
        path = Path(self.path).expanduser()
        if split == WHOLE:
            return path if path.is_file() else None
        return self._half(split, path.glob("*.npz")) if path.is_dir() else None

    def read_place(self, place: Path, settings: DataSettings) -> Raw:
        """Read the arrays."""
        raw = read_npz(place)
        with zipfile.ZipFile(place) as archive:  # which holds a checksum of the images
            raw.origin = f"{archive.getinfo('images.npy').CRC:08x}"[:6]
        return raw


@dataclass(kw_only=True, eq=False)
class Folder(_Own):
    """A tree of image files, class by sub-folder, whole or as `train` and `test`.

    Attributes:
        jpeg: quality that is assumed of JPEG files.
        bits: of grey files with more than 8; None for what the files themselves say.
    """

    form = "name a folder of images, or one with sub-folders train and test"

    def place(self, split: str) -> Path | None:
        """Return the folder of a split; a tree that is divided has no split `all`."""
        path = Path(self.path).expanduser()
        if not path.is_dir():
            return None
        with os.scandir(path) as entries:  # which tells folders without looking at each file
            inside = [Path(e.path) for e in entries if e.is_dir() and e.name[0] != "."]
        halves = {half: self._half(half, inside) for half in HALVES}
        known = [half for half in halves.values() if half is not None]
        # `val` among other folders may be a class; the other names are splits in any company
        divided = len(known) > 1 or any(
            len(inside) == 1 or not half.name.casefold().startswith("val") for half in known
        )
        if split == WHOLE:
            return None if divided else path
        return halves.get(split) if divided else None

    jpeg: int = 90
    bits: int | None = None

    def read_place(self, place: Path, settings: DataSettings) -> Raw:
        """List the images; they are decoded when they are asked for.

        Names read class/file, so that with `groups: track` files `track_frame` stay together.
        """
        from gradbench.data.files import list_classes, open_files, passed_over

        left: Counter[str] = Counter()
        paths, labels, classes = list_classes(place, left)
        if left:
            say(f"{place}: {passed_over(left)}")
        inside = [path.relative_to(place).as_posix() for path in paths]
        return Raw(
            open_files(paths, self.shape, settings.workers, self.bits),
            labels,
            np.array([name.rpartition(".")[0] for name in inside]),
            classes,
            origin=_digest(paths, inside),
        )


def _digest(paths: list[Path], names: list[str]) -> str:
    """Return a short digest of files: their names, sizes and first and last 32 KiB."""
    sha = hashlib.sha256()
    for path, name in zip(paths, names):
        size = path.stat().st_size
        sha.update(f"{name}\n{size}\n".encode())
        with open(path, "rb") as stream:
            sha.update(stream.read(ENDS))
            stream.seek(max(size - ENDS, 0))
            sha.update(stream.read(ENDS))
    return sha.hexdigest()[:6]
