"""Class-stratified draws that keep groups whole: the hold-out of a set, and a part of it."""

import numpy as np

from gradbench.data.imageset import ImageSet
from gradbench.errors import GradbenchError


def stratified_subset(images: ImageSet, limit: int | None) -> ImageSet:
    """Return a class-stratified part of a set, the same every time, in its order; None for all."""
    if limit is None or limit >= len(images):
        return images
    return images.select(np.flatnonzero(draw_hold_out(images.labels, images.groups, limit)))


def draw_hold_out(labels: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """Choose the images that the network is never trained on: (N,) bool, True for the hold-out.

    Class-stratified: each class gives its share of whole groups (tracks where frames repeat,
    single images elsewhere), drawn with seed 0. A group that holds several classes counts for the
    one that most of its images have. The count is exact where every group is one image and classes
    divide.
    """
    if not 0 <= count < len(labels):
        raise GradbenchError(
            f"a hold-out of {count} images from a training set of {len(labels)}: "
            f"choose between 0 and {len(labels) - 1}"
        )
    labels = _majority(labels, groups)
    chosen = np.zeros(len(labels), dtype=bool)
    classes, sizes = np.unique(labels, return_counts=True)
    exact = sizes * count / sizes.sum()
    wanted = np.floor(exact).astype(int)
    # largest remainders first; of fewer images than classes any part of the classes is as good, but
    # not the first, which may be all fish
    ties = np.arange(len(classes))
    if not wanted.any():
        ties = np.random.default_rng(0).permutation(len(classes))
    wanted[np.lexsort((ties, wanted - exact))[: count - wanted.sum()]] += 1
    for label, want in zip(classes, wanted):
        rows = np.flatnonzero(labels == label)
        members, index = np.unique(groups[rows], return_inverse=True)
        # a seed is not negative, the label of images without one is
        order = np.random.default_rng([0, int(label) % 2**32]).permutation(len(members))
        taken = 0
        for member in order:
            if taken >= want:
                break
            picked = rows[index == member] if len(members) < len(rows) else rows[[member]]
            chosen[picked] = True
            taken += len(picked)
    return chosen


def _majority(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return for every image the commonest label of its group, the least of several."""
    _, group = np.unique(groups, return_inverse=True)
    classes, label = np.unique(labels, return_inverse=True)
    pairs, counts = np.unique(np.stack([group, label]), axis=1, return_counts=True)
    order = np.lexsort((pairs[1], -counts, pairs[0]))
    first = np.unique(pairs[0][order], return_index=True)[1]
    return classes[pairs[1][order][first]][group]
