"""The archives of small images that were published with ODIN."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gradbench.data.dataset import DataSettings
from gradbench.data.raw import Raw
from gradbench.data.trees import Tree
from gradbench.errors import GradbenchError


@dataclass(kw_only=True, eq=False)
class OdinArchive(Tree):
    """Ten thousand photographs, reduced by the authors of ODIN (Liang, Li and Srikant 2018).

    `resize` archives hold whole photographs squashed to 32x32 by a filter that is not stated,
    `crop` archives patches of 32x32. What a copy holds is checked against that, since other
    reductions of the same photographs go by the same folder names.
    """

    labelled: bool = False

    def read_original(self, split: str, home: Path, settings: DataSettings) -> Raw:
        """Return the files of a split, still undecoded.

        Raises:
            GradbenchError: if an image has another size than the archive's.
        """
        raw = super().read_original(split, home, settings)
        sizes, paths = raw.images.sizes, raw.images.paths
        width, height = self.shape[:0:-1]
        wrong = np.flatnonzero((sizes != (width, height)).any(1))
        if len(wrong):
            first = wrong[0]
            raise GradbenchError(
                f"{home / self.folders[split]} is not the archive of {self.name}: {len(wrong):,} "
                f"of {len(paths):,} images are not {width}x{height}, the first being "
                f"{paths[first].name} of {sizes[first][0]}x{sizes[first][1]}; original photographs "
                f"belong to {self.name.split('_odin_')[0]}"
            )
        return raw
