"""The division of the public Mahalanobis code: the first images of each set tune, the rest count.

https://github.com/pokaxpoka/deep_Mahalanobis_detector
"""

from __future__ import annotations

import numpy as np

from gradbench.errors import GradbenchError
from gradbench.protocols.base import Fold, Protocol, Rows

MOST, SHARE = 1000, 0.1


class Reference(Protocol):
    """The first min(1,000, 10 %) of each set, in file order, tune; the rest is measured.

    The first half of the tuning images fits, the second chooses. In the original an image and what
    was made from it have the same place in their files, so both fall on one side. Here that is
    enforced: sources go in the order in which they first appear (by their place relative to the
    size of the set, on the side where it is lower), and stay whole, until one side has its number.

    Differs from the paper: a source (or track) that would be cut goes to the later part as a whole,
    and clean images with noisy copies beside them count as one set.

    Args:
        name: of the protocol.
        description: one line for `gradbench list`.
    """

    def __init__(self, name: str = "reference", description: str = ""):
        self.name, self.description = name, description

    @property
    def told(self) -> str:
        """See `Protocol`."""
        return (
            "One division in file order: of the first min(1,000, 10 %) of each set, half is fitted "
            "on and half chosen with; the rest is measured, as in the public code of Mahalanobis "
            "and ODIN. Images of one source stay together; all detectors on the same images."
        )

    def folds(
        self, normal_groups: np.ndarray, abnormal_groups: np.ndarray, seed: int | str = 0
    ) -> list[Fold]:
        """Return the one division; it depends on the order of the images, not on the seed.

        Raises:
            GradbenchError: if fitting, choosing or measuring gets no image of a side.
        """
        sides = [np.asarray(side, dtype=str) for side in (normal_groups, abnormal_groups)]
        if np.intersect1d(*sides).size:
            parts = _divided(sides)
        else:
            parts = [_divided([side])[0] for side in sides]
        rows = [Rows(*(np.flatnonzero(part == which) for part in parts)) for which in range(3)]
        for what, part in zip(("fitting", "choosing", "measuring"), rows):
            for side, given, groups in zip(("normal", "abnormal"), (part.normal, part.abnormal),
                                           sides):  # fmt: skip
                if not len(given):
                    raise GradbenchError(
                        f"protocol reference: {what} gets none of the {len(groups)} {side} images "
                        f"({len(np.unique(groups))} sources, tracks or regions): give more images, "
                        "or take protocol=grouped"
                    )
        return [Fold(*rows)]


def _divided(sides: list[np.ndarray]) -> list[np.ndarray]:
    """Return 0 (fit), 1 (choose) or 2 (measure) for each image of sides that share sources."""
    names, index = np.unique(np.concatenate(sides), return_inverse=True)
    places = np.split(index, np.cumsum([len(side) for side in sides])[:-1])
    first = np.full((len(sides), len(names)), np.inf)
    sizes = np.zeros((len(sides), len(names)), dtype=int)
    for number, place in enumerate(places):
        found, row = np.unique(place, return_index=True)
        first[number, found] = row / len(place)
        sizes[number] = np.bincount(place, minlength=len(names))
    order = np.argsort(first.min(axis=0), kind="stable")
    reached = np.cumsum(sizes[:, order], axis=1)
    quotas = np.array([min(MOST, int(SHARE * len(side))) for side in sides])[:, None]
    part = np.full(len(names), 2)
    part[order[(reached <= quotas).all(axis=0)]] = 1
    part[order[(2 * reached <= quotas).all(axis=0)]] = 0
    return [part[place] for place in places]
