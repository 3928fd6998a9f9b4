"""Statistics of the controls: values that must be equal, and scores that must not differ."""

from __future__ import annotations

from collections import Counter

import numpy as np
from scipy.stats import mannwhitneyu

from gradbench.errors import GradbenchError
from gradbench.protocols.base import partition

LEVEL = 0.001
"""Warn where p after Holm's correction is below this."""


def random_labels(groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """Call half of the images abnormal, arbitrarily, by whole groups.

    A detector fitted on these labels must not beat chance on images not used for fitting. The draw
    depends on the names of the groups and the seed, not on the order of the images, and is
    independent of the folds of a protocol with the same seed.

    Returns:
        (N,) bool for the (N,) groups; as many True as False, to within the largest group.

    Raises:
        GradbenchError: if there is but one group.
    """
    names = np.asarray(groups, dtype=str).tolist()
    sizes = {name: (count,) for name, count in Counter(names).items()}
    if len(sizes) < 2:
        raise GradbenchError(
            f"random labels need at least 2 groups of images, and there are {len(sizes)}"
        )
    half = partition(sizes, 2, "labels", seed)
    return np.array([half[name] == 1 for name in names])


def mann_whitney_p(
    scores: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None
) -> float:
    """Return the two-sided p of Mann and Whitney for scores that do not depend on the labels.

    Args:
        scores: (N,) scores of one fitted detector.
        labels: (N,) bool.
        groups: (N,) group of each image, each of one label. Scores are averaged within groups, as
            frames of one track are not independent. By default every image is by itself.
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    if groups is not None:
        _, index, sizes = np.unique(
            np.asarray(groups, dtype=str), return_inverse=True, return_counts=True
        )
        scores = np.bincount(index, scores) / sizes
        share = np.bincount(index, labels) / sizes
        if not np.isin(share, (0, 1)).all():
            raise GradbenchError("random labels must be drawn by group, and a group has both")
        labels = share == 1
    if (scores == scores[0]).all():
        return 1.0
    return float(mannwhitneyu(scores[labels], scores[~labels]).pvalue)


def assert_identical(clean: np.ndarray, made: np.ndarray, what: str) -> None:
    """Stop the run unless values of the clean images and of a challenge of strength zero are equal.

    Type, shape and every value count; `what` names the values and their challenge.

    Raises:
        GradbenchError: naming how many values differ, and by how much at most.
    """
    a, b = np.asarray(clean), np.asarray(made)
    if a.shape != b.shape or a.dtype != b.dtype:
        raise GradbenchError(
            f"{what} must be identical at strength zero, but clean gives {a.dtype} {a.shape} "
            f"and the challenge {b.dtype} {b.shape}"
        )
    same = a == b
    if a.dtype.kind == "f":
        same |= np.isnan(a) & np.isnan(b)
    if not same.all():
        gap = np.abs(a[~same].astype(np.float64) - b[~same].astype(np.float64)).max()
        raise GradbenchError(
            f"{what} must be identical at strength zero, but {int((~same).sum())} of {a.size} "
            f"values differ, by {gap:.3g} at most"
        )
