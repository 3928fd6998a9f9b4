"""What a source hands over before names, roles and provenance are put to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from gradbench.data.imageset import LazyImages

WHOLE = "all"
"""Split of images that are not divided into training and test."""
UNLABELLED = -1
"""Label of an image whose class is not known, as in ODIN's archives; only a challenge has them."""


@dataclass
class Raw:
    """Images of one split as a source holds them.

    Attributes:
        images: (N, C, H, W) uint8, in memory or read when asked for.
        labels: (N,) int64 from 0; `UNLABELLED` where the source has none.
        names: (N,) names in the source, for GTSRB `class/track_frame`; None where there are none.
        classes: names of the labels, empty where the source does not tell.
        groups: (N,) what belongs together, where the source itself knows it.
        copied: a copy as arrays, made by someone else; what was done in making it may be unknown.
        restored: pixels are known only up to an error.
        origin: digest of the content, where the set's name does not tell it from others.
        rows: (N,) places in the undivided set that these images were taken from; None for all.
        note: what a reader must know of this source.
    """

    images: np.ndarray | LazyImages
    labels: np.ndarray
    names: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    groups: np.ndarray | None = None
    copied: bool = False
    restored: bool = False
    origin: str = ""
    rows: np.ndarray | None = None
    note: str = ""


def standing(official: int, count: int, regenerated: bool) -> str:
    """Return the status of a copy: `part`, `regenerated` or `official`.

    Args:
        official: number of images of the published split, 0 where there is none.
        count: number of images in the copy.
        regenerated: pixels were restored, or their size was chosen by the maker of the copy.

    >>> standing(100, 100, False), standing(100, 99, True)
    ('official', 'part')
    """
    if count < official:
        return "part"
    return "regenerated" if regenerated else "official"


def join_notes(*notes: str) -> str:
    """Join notes that are not empty, in order.

    >>> join_notes("part", "", "grey -> RGB")
    'part; grey -> RGB'
    """
    return "; ".join(note for note in notes if note)
