"""Finds the place of every image in another order of the same set, by its pixels."""

from __future__ import annotations

import numpy as np

from gradbench.errors import GradbenchError

FARTHEST = 4.0
"""Root mean square difference in grey levels above which an image is not the one sought."""


class Unmatched(GradbenchError):
    """Images that cannot be matched one to one; says why."""


def match(
    sought: np.ndarray, labels: np.ndarray, rows: np.ndarray, row_labels: np.ndarray
) -> np.ndarray:
    """Return for each image the nearest row with its label.

    Distances are exact: sums of squares of whole numbers in float64.

    Args:
        sought: (N, P) uint8 images.
        labels: (N,) of them.
        rows: (M, P) uint8 images to find them among.
        row_labels: (M,) of them.

    Returns:
        (N,) int64 places among the rows, each at most once.

    Raises:
        Unmatched: if two images have the same nearest row, or a nearest row is too far.
    """
    found = np.full(len(sought), -1, np.int64)
    for label in np.unique(labels):
        mine, theirs = np.flatnonzero(labels == label), np.flatnonzero(row_labels == label)
        if not len(theirs):
            raise Unmatched(f"no row has the label {label} of image {mine[0]}")
        left, right = sought[mine].astype(np.float64), rows[theirs].astype(np.float64)
        squares = (left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * left @ right.T
        nearest = squares.argmin(1)
        apart = np.sqrt(squares[np.arange(len(mine)), nearest] / left.shape[1])
        worst = int(apart.argmax())
        if apart[worst] > FARTHEST:
            raise Unmatched(
                f"the nearest row with the label of image {mine[worst]} differs from it by "
                f"{apart[worst]:.1f} grey levels"
            )
        row, count = np.unique(nearest, return_counts=True)
        if count.max() > 1:
            one, other = mine[np.flatnonzero(nearest == row[count.argmax()])[:2]]
            raise Unmatched(f"images {one} and {other} have the same nearest row")
        found[mine] = theirs[nearest]
    return found
