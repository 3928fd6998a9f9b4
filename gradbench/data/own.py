"""A user's own images: arrays in `.npz` files, or folders of image files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.npz import read_npz
from gradbench.data.raw import Raw

WHOLE = "all"
"""Split of images that are not divided into training and test."""


@dataclass(kw_only=True, eq=False)
class _Own(Dataset):
    """Images at a path: one place for all of them, or `train` and `test` inside it.

    Attributes:
        name: of the set; the last part of the path where None, so that the sources of two sets
            are told apart.
        path: file or folder, relative to the working folder.
    """

    name: str | None = None
    path: str | None = None

    def __post_init__(self):
        if self.name is None:
            self.name = Path(self.path).stem if self.path else "unnamed"
        super().__post_init__()

    def here(self, split: str, settings: DataSettings) -> bool:
        """Return whether the path holds the split."""
        return self.path is not None and self.place(split) is not None

    def ready(self, role: str, settings: DataSettings) -> str | None:
        """Return None if the path holds images for the role, else what is missing."""
        if self.path is None:
            return "set dataset.path"
        return None if super().ready(role, settings) is None else f"no {role} in {self.path}"

    def place(self, split: str) -> Path | None:
        """Return where a split is, None where it is not."""
        raise NotImplementedError(f"{type(self).__name__} keeps no images")

    def _ways(self, splits, settings, download) -> str:
        if self.path is None:
            return "dataset.path is not set: name your images, for example dataset.path=/my/images"
        return f"{self.path} has no {' or '.join(splits)}: {self.form}"


@dataclass(kw_only=True, eq=False)
class Arrays(_Own):
    """One `.npz` file (split `all`), or a folder with `train.npz` and `test.npz`."""

    form = "name a .npz file, or a folder with train.npz and test.npz"

    def place(self, split: str) -> Path | None:
        """Return the file of a split."""
        path = Path(self.path).expanduser()
        path = path if split == WHOLE else path / f"{split}.npz"
        return path if path.is_file() else None

    def read(self, split: str, settings: DataSettings) -> Raw:
        """Read the arrays."""
        return read_npz(self.place(split))


@dataclass(kw_only=True, eq=False)
class Folder(_Own):
    """A tree of image files, class by sub-folder, whole (split `all`) or as `train` and `test`."""

    form = "name a folder of images, or one with sub-folders train and test"

    def place(self, split: str) -> Path | None:
        """Return the folder of a split; a tree that is divided has no split `all`."""
        path = Path(self.path).expanduser()
        divided = (path / "train").is_dir() or (path / "test").is_dir()
        path = path if split == WHOLE else path / split
        return path if path.is_dir() and not (split == WHOLE and divided) else None

    def read(self, split: str, settings: DataSettings) -> Raw:
        """List the images; they are decoded when they are asked for."""
        from gradbench.data.files import list_classes, open_files

        paths, labels, classes = list_classes(self.place(split))
        return Raw(open_files(paths, self.shape, settings.workers), labels, classes=classes)
