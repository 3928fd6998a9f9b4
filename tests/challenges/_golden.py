"""Writes and reads `golden.txt`: some pixels of every family and level, as hexadecimal digits.

`python tests/challenges/_golden.py` writes it anew. Where it changes, raise the family's version.
"""

from pathlib import Path

import numpy as np
from _pictures import pictures

from gradbench.challenges.corruptions.base import CommonCorruption
from gradbench.challenges.produce import ChallengeSetup
from gradbench.config import load_member
from gradbench.support.instantiate import instantiate

FILE = Path(__file__).with_name("golden.txt")


def challenge(family: str, **changes) -> CommonCorruption:
    """Return a family as its configuration file describes it."""
    return instantiate("challenge", family, load_member("challenge", family) | changes)


def some_pixels(corruption: CommonCorruption, level: int) -> np.ndarray:
    """Return 30 pixels of two corrupted images."""
    clean = pictures()
    source = ChallengeSetup(corruption, corruption.family, corruption.strength_at(level), seed=1)
    made = source.make(clean, np.arange(2))
    return made[:, :, 3::8, 2::6].ravel()[::4]


def read() -> dict[str, tuple[int, list[np.ndarray]]]:
    """Return version and pixels of every level, by family and table."""
    found = {}
    for line in FILE.read_text().splitlines():
        name, version, *levels = line.split()
        found[name] = int(version), [np.frombuffer(bytes.fromhex(t), np.uint8) for t in levels]
    return found


def write() -> None:
    """Write the pixels of every family and both tables."""
    from gradbench.challenges.corruptions.tables import FAMILIES, TABLES

    lines = []
    for family in FAMILIES:
        for table in TABLES:
            made = challenge(family, table=table)
            pixels = [some_pixels(made, level).tobytes().hex() for level in made.levels]
            lines.append(" ".join([f"{family}/{table}", str(made.version), *pixels]))
    FILE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    write()
