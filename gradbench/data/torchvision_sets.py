"""Sets whose published files torchvision reads into arrays: CIFAR, SVHN, MNIST's kin, STL-10."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.raw import Raw
from gradbench.errors import GradbenchError


@dataclass(kw_only=True, eq=False)
class TorchvisionSet(Dataset):
    """A set in torchvision's layout, under the data root or under `<root>/<name>`.

    Attributes:
        library: class in `torchvision.datasets`.
        arguments: split -> arguments of that class.
        files: split -> files, relative to the folder given to torchvision, by which the split is
            recognised without importing torchvision.
        transpose: the published images lie on their side (EMNIST).
        first_label: least published label (1 for EMNIST letters).
    """

    library: str
    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)
    transpose: bool = False
    first_label: int = 0

    def original(self, split: str, settings: DataSettings) -> Path | None:
        """Return the folder to give to torchvision."""
        files = self.files.get(split)
        for home in (settings.root, settings.root / self.name):
            if files and all((home / file).is_file() for file in files):
                return home
        return None

    def read_original(self, split: str, home: Path, settings: DataSettings) -> Raw:
        """Read a split with torchvision, which checks the files' own checksums."""
        import torchvision.datasets

        library = getattr(torchvision.datasets, self.library)
        try:
            published = library(root=str(home), download=False, **self.arguments.get(split, {}))
        except (RuntimeError, OSError, ValueError, EOFError, pickle.UnpicklingError) as fault:
            raise GradbenchError(
                f"the files of {self.name} under {home} are not as published: {fault}"
            ) from fault
        images = np.asarray(published.data)
        targets = published.targets if hasattr(published, "targets") else published.labels
        if images.ndim == 3:
            images = (images.swapaxes(1, 2) if self.transpose else images)[:, None]
        elif images.shape[3] == 3:
            images = images.transpose(0, 3, 1, 2)
        labels = np.asarray(targets).astype(np.int64) - self.first_label
        return Raw(np.ascontiguousarray(images), labels)

    def layout(self, split: str) -> str:
        """Return the first of the published files."""
        return self.files[split][0] if self.files.get(split) else ""
