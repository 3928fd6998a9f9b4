"""CURE-TSR: traffic signs without a challenge, and under twelve challenges at five levels.

Temel, Kwon, Prabhushankar and AlRegib 2017, "CURE-TSR: Challenging Unreal and Real Environments
for Traffic Sign Recognition", https://github.com/olivesgatech/CURE-TSR.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.files import SUFFIXES, open_files
from gradbench.data.loading import LoadedSplit
from gradbench.errors import GradbenchError, MissingData

WORLDS = ("real", "unreal")
"""Sequence types 01 and 02; their folders begin with these names, capitalised."""
SIGNS = 14
FREE = "ChallengeFree"
FOLDERS = {
    name: name.title().replace("_", "")
    for name in (
        "decolorization", "lens_blur", "codec_error", "darkening", "dirty_lens", "exposure",
        "gaussian_blur", "noise", "rain", "shadow", "snow", "haze",
    )
}  # fmt: skip
"""Challenge types 01 to 12, and how their folders begin."""
LEVELS = (1, 2, 3, 4, 5)
GRAMMAR = "sequenceType_signType_challengeType_challengeLevel_Index.bmp"
RULES = (
    "01 (real) or 02 (unreal), sign 01 to 14, challenge 00 (none) to 12, level 01 to 05 "
    "(00 without challenge), number"
)
NAME = re.compile(
    r"(0[12])_(0[1-9]|1[0-4])_(00_00|(?:0[1-9]|1[0-2])_0[1-5])_(\d+)\.bmp",
    re.IGNORECASE | re.ASCII,
)


def folder_of(challenge: int, level: int) -> str:
    """Return the folder of a challenge type (0 for none) at a level.

    >>> folder_of(8, 3)
    'Noise-3'
    """
    return f"{[*FOLDERS.values()][challenge - 1]}-{level}" if challenge else FREE


@dataclass(kw_only=True, eq=False)
class CureTsr(Dataset):
    """The published folders, whole or in part, such as Real_Test/ChallengeFree, Real_Test/Noise-3.

    Training and test images are the challenge-free ones. Images that share world, sign type and
    index within a split are twins, that is one sign without and with challenges, and are one group.

    Assumed: that an index means the same sign in all folders of a split, as public code that uses
    the set takes it. Names do not tell which images show one physical sign in several frames of a
    video, so those may stand on both sides of a hold-out.
    """

    homes = ("CURE-TSR", "cure_tsr", ".")
    world: Literal["real", "unreal"] = "real"

    def published_files(self, split: str) -> Sequence[str]:
        """Return the folder of a split's challenge-free images."""
        return (f"{self._folder(split)}/{FREE}",)

    def read_published(self, split: str, home: Path, settings: DataSettings) -> LoadedSplit:
        """Return the challenge-free images of a split, still undecoded."""
        return self._read_folder(home / self._folder(split) / FREE, settings)

    def challenged(self, split: str, kind: str, level: int, settings: DataSettings) -> LoadedSplit:
        """Return the images of a split under a challenge of FOLDERS at a level, still undecoded.

        Raises:
            MissingData: if the copy has no such folder.
            GradbenchError: if a name breaks the grammar or belongs to another folder.
        """
        name = folder_of([*FOLDERS].index(kind) + 1, level)
        tops = [settings.root / home / self._folder(split) for home in self.homes]
        for top in tops:
            if (top / name).is_dir():
                return self._read_folder(top / name, settings)
        top = next(filter(Path.is_dir, tops), tops[0])
        raise MissingData(f"this copy of CURE-TSR has no folder {top / name}")

    def _read_folder(self, folder: Path, settings: DataSettings) -> LoadedSplit:
        """Return the images of a folder in the order of their names."""
        paths, kinds, originals = [], [], []
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
                continue
            fields = NAME.fullmatch(path.name)
            if fields is None:
                raise GradbenchError(f"{path} breaks the grammar of CURE-TSR, {GRAMMAR}: {RULES}")
            world, kind, index = int(fields[1]), int(fields[2]), int(fields[4])
            home = folder_of(*map(int, fields[3].split("_")))
            if home != folder.name or WORLDS[world - 1] != self.world:
                raise GradbenchError(
                    f"{path} lies in the wrong folder: its name belongs to {home} of the "
                    f"{WORLDS[world - 1]} world"
                )
            paths.append(path)
            kinds.append(kind)
            originals.append(f"{world:02d}_{kind:02d}_{index:04d}")
        if not paths:
            raise MissingData(
                f"{folder} holds no images: a copy of CURE-TSR has files {GRAMMAR} there"
            )
        count = len(set(kinds))
        return LoadedSplit(
            open_files(paths, self.shape, settings.workers),
            np.array(kinds) - 1,
            names=np.array([path.stem for path in paths]),
            groups=np.array(originals),
            note=f"{count} of {SIGNS} sign types" if count < SIGNS else "",
        )

    def _folder(self, split: str) -> str:
        return f"{self.world.capitalize()}_{split.capitalize()}"
