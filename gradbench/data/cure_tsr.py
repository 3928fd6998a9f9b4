"""CURE-TSR: traffic signs without a challenge, and under twelve challenges at five levels.

Temel, Kwon, Prabhushankar and AlRegib 2017, "CURE-TSR: Challenging Unreal and Real Environments
for Traffic Sign Recognition", https://github.com/olivesgatech/CURE-TSR.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.files import SUFFIXES, open_files
from gradbench.data.loading import LoadedSplit
from gradbench.errors import GradbenchError, MissingData, unknown

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
    r"(0[12])_(0[1-9]|1[0-4])_(0\d|1[0-2])_(0[0-5])_(\d+)\.bmp", re.IGNORECASE | re.ASCII
)
LEVELLED = re.compile(r"([A-Za-z]+)-(\d+)")


class Sign(NamedTuple):
    """The fields of an image's name.

    Attributes:
        world: 1 real, 2 unreal.
        kind: of the sign, 1 to 14.
        challenge: 0 for none, 1 to 12 as in FOLDERS.
        level: 0 without challenge, otherwise 1 to 5.
        index: number of the image among those with the same other fields.
    """

    world: int
    kind: int
    challenge: int
    level: int
    index: int

    @property
    def original(self) -> str:
        """The name that an image shares with the challenge-free one that it was made from."""
        return f"{self.world:02d}_{self.kind:02d}_{self.index:04d}"


def folder_of(challenge: int, level: int) -> str:
    """Return the folder of a challenge type (0 for none) at a level.

    >>> folder_of(8, 3)
    'Noise-3'
    """
    return f"{[*FOLDERS.values()][challenge - 1]}-{level}" if challenge else FREE


def parse_name(path: Path) -> Sign:
    """Return the fields of a file's name; one that breaks the grammar is refused."""
    fields = NAME.fullmatch(path.name)
    sign = Sign(*map(int, fields.groups())) if fields else None
    if sign is None or (sign.challenge > 0) != (sign.level > 0):
        raise GradbenchError(f"{path} breaks the grammar of CURE-TSR, {GRAMMAR}: {RULES}")
    return sign


def list_signs(folder: Path, world: str) -> tuple[list[Path], list[Sign]]:
    """Return the images of a folder in the order of their names, and the fields of the names.

    Raises:
        GradbenchError: if a name breaks the grammar or belongs to another folder.
    """
    paths = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )
    signs = [parse_name(path) for path in paths]
    for path, sign in zip(paths, signs):
        if (home := folder_of(sign.challenge, sign.level)) != folder.name:
            raise GradbenchError(
                f"{path} lies in the wrong folder: its name belongs to {home}, by its challenge "
                "type and level"
            )
        if (other := WORLDS[sign.world - 1]) != world:
            raise GradbenchError(
                f"{path} lies in the wrong folder: its name is that of an image of the {other} "
                f"world, and {folder.parent.name} holds the {world} one"
            )
    return paths, signs


@dataclass(kw_only=True, eq=False)
class CureTsr(Dataset):
    """The published folders, whole or in part, such as Real_Test/ChallengeFree, Real_Test/Noise-3.

    Training and test images are the challenge-free ones. Images that share world, sign type and
    index within a split are twins, that is one sign without and with challenges, and are one group.

    Assumed: that an index means the same sign in all folders of a split, as public code that uses
    the set takes it. Names do not tell which images show one physical sign in several frames of a
    video, so those may stand on both sides of a hold-out.

    Attributes:
        world: `real` or `unreal`.
    """

    homes = ("CURE-TSR", "cure_tsr", ".")
    world: str = "real"

    def __post_init__(self):
        super().__post_init__()
        if self.world not in WORLDS:
            raise unknown("world of CURE-TSR", str(self.world), WORLDS)

    def published_files(self, split: str) -> Sequence[str]:
        """Return the folder of a split's challenge-free images."""
        return (f"{self._folder(split)}/{FREE}",)

    def read_published(self, split: str, home: Path, settings: DataSettings) -> LoadedSplit:
        """Return the challenge-free images of a split, still undecoded."""
        top = home / self._folder(split)
        check_folders(top)
        return self._read_folder(top / FREE, settings)

    def challenged(self, split: str, kind: str, level: int, settings: DataSettings) -> LoadedSplit:
        """Return the images of a split under a challenge of FOLDERS at a level, still undecoded.

        Raises:
            MissingData: if the copy has no such folder.
            GradbenchError: if a name breaks the grammar or belongs to another folder.
        """
        name = folder_of([*FOLDERS].index(kind) + 1, level)
        tops = [settings.root / home / self._folder(split) for home in self.homes]
        there = [top for top in tops if top.is_dir()]
        for top in there:
            check_folders(top)
            if (top / name).is_dir():
                return self._read_folder(top / name, settings)
        raise MissingData(f"this copy of CURE-TSR has no folder {(there or tops)[0] / name}")

    def group(self, split: str, original: str) -> str:
        """Return the group of all twins of an image; see `Sign.original`."""
        return f"{self.name}/{split}/{original}"

    def _read_folder(self, folder: Path, settings: DataSettings) -> LoadedSplit:
        paths, signs = list_signs(folder, self.world)
        if not paths:
            raise MissingData(
                f"{folder} holds no images: a copy of CURE-TSR has files {GRAMMAR} there"
            )
        kinds = len({sign.kind for sign in signs})
        return LoadedSplit(
            open_files(paths, self.shape, settings.workers),
            np.array([sign.kind - 1 for sign in signs]),
            names=np.array([path.stem for path in paths]),
            groups=np.array([sign.original for sign in signs]),
            note=f"{kinds} of {SIGNS} sign types" if kinds < SIGNS else "",
        )

    def _folder(self, split: str) -> str:
        return f"{self.world.capitalize()}_{split.capitalize()}"


def check_folders(top: Path) -> None:
    """Refuse folders that look like a challenge at a level and are none."""
    for entry in sorted(top.iterdir()):
        found = LEVELLED.fullmatch(entry.name)
        if not found or not entry.is_dir():
            continue
        if found[1] not in FOLDERS.values():
            raise unknown(f"challenge type of CURE-TSR ({entry})", found[1], FOLDERS.values())
        if int(found[2]) not in LEVELS:
            raise GradbenchError(
                f"{entry}: CURE-TSR has no level {found[2]}: choose from "
                f"{', '.join(map(str, LEVELS))}"
            )
