"""Isolation forest on the profiles of clean images, kept as tensors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from sklearn.ensemble import IsolationForest
from torch import Tensor

from gradbench.errors import GradbenchError

PARTS = ("left", "right", "feature", "threshold", "depth")


def expected_depth(count: np.ndarray) -> np.ndarray:
    """Return the mean path length of an unsuccessful search among `count` leaves (equation 1)."""
    count = np.asarray(count, dtype=np.float64)
    many = np.maximum(count, 3)
    long = 2 * (np.log(many - 1) + np.euler_gamma) - 2 * (many - 1) / many
    return np.where(count <= 1, 0.0, np.where(count == 2, 1.0, long))


class Forest:
    """Isolation forest (Liu, Ting and Zhou 2008), https://doi.org/10.1109/ICDM.2008.17.

    The score 2^(-mean depth / expected depth) of the paper, with its 100 trees of 256 images.

    Args:
        trees: number of trees.
        samples: images that each tree sees; all where there are fewer.

    Raises:
        GradbenchError: for a setting below 1.
    """

    def __init__(self, trees: int = 100, samples: int = 256):
        if any(type(value) is not int or value < 1 for value in (trees, samples)):
            raise GradbenchError(f"forest trees={trees} samples={samples}: whole numbers, from 1")
        self.trees, self.samples = trees, samples
        self.nodes: dict[str, Tensor] = {}

    def fit(self, profiles: Tensor, seed: int = 0) -> Forest:
        """Grow the trees, and keep them as tables of (trees, nodes)."""
        count = min(self.samples, len(profiles))
        forest = IsolationForest(n_estimators=self.trees, max_samples=count, random_state=seed)
        forest.fit(profiles.numpy())
        most = max(tree.tree_.node_count for tree in forest.estimators_)
        tables = {name: np.zeros((self.trees, most)) for name in PARTS}
        for row, tree in enumerate(forest.estimators_):
            for name, values in _table(tree.tree_).items():
                tables[name][row, : len(values)] = values
        self.nodes = {
            name: torch.from_numpy(table.astype(np.float64 if name in PARTS[3:] else np.int64))
            for name, table in tables.items()
        }
        self.nodes["expected"] = torch.from_numpy(expected_depth(np.array(count))).clone()
        return self

    def distance(self, profiles: Tensor) -> Tensor:
        """Return (N,) scores in (0, 1)."""
        profiles = profiles.float().double()  # scikit-learn's trees see float32
        depth = torch.zeros(len(profiles), dtype=torch.float64)
        rows = torch.arange(len(profiles))
        for left, right, feature, threshold, ends in zip(*(self.nodes[name] for name in PARTS)):
            place = torch.zeros(len(profiles), dtype=torch.int64)
            while True:  # a leaf is its own child
                goes_left = profiles[rows, feature[place]] <= threshold[place]
                following = torch.where(goes_left, left[place], right[place])
                if torch.equal(following, place):
                    break
                place = following
            depth += ends[place]
        expected = self.nodes["expected"]
        mean = depth / len(self.nodes["left"])
        return torch.exp2(-mean / expected) if expected > 0 else torch.full_like(mean, 0.5)

    def state(self) -> dict[str, Tensor]:
        """Return the tables."""
        return dict(self.nodes)

    def load(self, state: Mapping[str, Tensor]) -> Forest:
        """Take over the tables."""
        self.nodes = dict(state)
        return self


def _table(tree) -> dict[str, np.ndarray]:
    """Return one tree's nodes: children (a leaf's are itself), split, and depth of its end."""
    own = np.arange(tree.node_count)
    leaf = tree.children_left < 0
    steps = np.zeros(tree.node_count)
    for node in own[~leaf]:  # parents stand before their children
        steps[[tree.children_left[node], tree.children_right[node]]] = steps[node] + 1
    return {
        "left": np.where(leaf, own, tree.children_left),
        "right": np.where(leaf, own, tree.children_right),
        "feature": np.where(leaf, 0, tree.feature),
        "threshold": tree.threshold,
        "depth": steps + expected_depth(tree.n_node_samples),
    }
