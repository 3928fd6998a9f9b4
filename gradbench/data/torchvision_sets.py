"""Sets whose published files torchvision reads into arrays: CIFAR, SVHN, MNIST's kin, STL-10."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.loading import LoadedSplit


@dataclass(kw_only=True, eq=False)
class TorchvisionSet(Dataset):
    """A set in torchvision's layout, under the data root or under `<root>/<name>`."""

    library: str  # class in `torchvision.datasets`
    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # split -> its own
    transpose: bool = False  # the published images lie on their side (EMNIST)
    first_label: int = 0  # least published label (1 for EMNIST letters)

    def count(self, split: str, settings: DataSettings) -> tuple[int | None, bool]:
        """Return the count of arrays; published files, which are whole or not here, hold all."""
        count, restored = super().count(split, settings)
        return (self.counts.get(split) if count is None else count), restored

    def read_published(self, split: str, home: Path, settings: DataSettings) -> LoadedSplit:
        """Read a split with torchvision, which checks the files' own checksums."""
        import torchvision.datasets  # and torch: seconds, which lists of data sets do not need

        library, arguments = getattr(torchvision.datasets, self.library), self.arguments.get(split)
        published = library(root=str(home), download=False, **(arguments or {}))
        images = np.asarray(published.data)
        targets = published.targets if hasattr(published, "targets") else published.labels
        if images.ndim == 3:
            images = (images.swapaxes(1, 2) if self.transpose else images)[:, None]
        elif images.shape[3] == 3:
            images = images.transpose(0, 3, 1, 2)
        labels = np.asarray(targets).astype(np.int64) - self.first_label
        return LoadedSplit(np.ascontiguousarray(images), labels)
