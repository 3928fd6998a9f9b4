"""Models of the profiles of clean images: covariance, neighbours, mixture of Gaussians, forest.

Each has `fit(profiles, seed)`, `distance(profiles)`, higher = further from the clean ones, `state`
and `load`; profiles are (N, d) float64 with mean zero in every class. Settings are not tuned.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from sklearn.covariance import ledoit_wolf
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from gradbench.errors import GradbenchError
from gradbench.methods.banks import check_neighbours, kth_distance
from gradbench.methods.base import Fitted
from gradbench.methods.tuning import check_whole

TINY = 1e-12
NODE_PARTS = ("left", "right", "feature", "threshold", "depth")


class Mahalanobis(Fitted):
    """Mahalanobis distance with the covariance of Ledoit and Wolf (2004), shared by all classes.

    https://doi.org/10.1016/S0047-259X(03)00096-4; shrinkage towards a multiple of the identity
    keeps it invertible where there are fewer images than tensors, or tensors without gradient.
    """

    learned = ("precision",)

    def __init__(self):
        self.precision = torch.empty(0)

    def fit(self, profiles: Tensor, seed: int = 0) -> Mahalanobis:
        """Invert the shrunk covariance."""
        covariance, _ = ledoit_wolf(profiles.numpy(), assume_centered=True)
        self.precision = torch.linalg.pinv(torch.from_numpy(covariance), hermitian=True)
        return self

    def distance(self, profiles: Tensor) -> Tensor:
        """Return (N,) Mahalanobis distances from zero, the mean of every class."""
        return ((profiles @ self.precision) * profiles).sum(1).clamp(min=0).sqrt()


class _Scaled(Fitted):
    """Brings every tensor's profile to unit variance over the clean images."""

    def __init__(self):
        self.scale = torch.empty(0)

    def _fit_scale(self, profiles: Tensor) -> Tensor:
        std = profiles.square().mean(0).sqrt()
        self.scale = torch.where(std > TINY, std, 1)  # a constant one carries nothing
        return profiles / self.scale


class Neighbours(_Scaled):
    """Euclidean distance to the k-th nearest clean profile, each tensor at unit variance.

    Args:
        k: which neighbour.

    Raises:
        GradbenchError: if k is below 1, or at the fit above the number of images.
    """

    learned = ("scale", "bank")

    def __init__(self, k: int = 10):
        super().__init__()
        self.k = check_whole("knn k", k)
        self.bank = torch.empty(0)

    def fit(self, profiles: Tensor, seed: int = 0) -> Neighbours:
        """Keep the profiles."""
        check_neighbours("gradient_oneclass", self.k, profiles)
        self.bank = self._fit_scale(profiles).float()
        return self

    def distance(self, profiles: Tensor) -> Tensor:
        """Return (N,) distances."""
        return kth_distance(profiles / self.scale, self.bank, self.k)


class Mixture(_Scaled):
    """Minus the log density of a mixture of Gaussians with full covariances.

    Fitted by expectation maximisation (scikit-learn) from k-means, each tensor at unit variance.

    Args:
        components: number of Gaussians; as many as there are images where those are fewer.
        ridge: added to the variances, in units of the tensors' own.

    Raises:
        GradbenchError: for a setting out of range.
    """

    learned = ("scale", "weights", "means", "cholesky")

    def __init__(self, components: int = 5, ridge: float = 0.01):
        super().__init__()
        if type(components) is not int or components < 1 or not ridge > 0:
            raise GradbenchError(f"gmm components={components} ridge={ridge}: from 1, above 0")
        self.components, self.ridge = components, ridge
        self.weights = self.means = self.cholesky = torch.empty(0)

    def fit(self, profiles: Tensor, seed: int = 0) -> Mixture:
        """Fit the mixture."""
        model = GaussianMixture(
            min(self.components, len(profiles)), reg_covar=self.ridge, random_state=seed
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # 100 rounds are the definition
            model.fit(self._fit_scale(profiles).numpy())
        parts = (model.weights_, model.means_, model.precisions_cholesky_)
        self.weights, self.means, self.cholesky = (torch.from_numpy(part.copy()) for part in parts)
        return self

    def distance(self, profiles: Tensor) -> Tensor:
        """Return (N,) minus the log density."""
        scaled = profiles / self.scale
        densities = []
        for weight, mean, cholesky in zip(self.weights, self.means, self.cholesky):
            square = ((scaled - mean) @ cholesky).square().sum(1)
            log_det = cholesky.diagonal().log().sum()
            constant = weight.log() + log_det - 0.5 * len(mean) * math.log(2 * math.pi)
            densities.append(constant - 0.5 * square)
        return -torch.stack(densities, dim=1).logsumexp(1)


def expected_depth(count: np.ndarray) -> np.ndarray:
    """Return the mean path length of an unsuccessful search among `count` leaves (equation 1)."""
    count = np.asarray(count, dtype=np.float64)
    many = np.maximum(count, 3)
    long = 2 * (np.log(many - 1) + np.euler_gamma) - 2 * (many - 1) / many
    return np.where(count <= 1, 0.0, np.where(count == 2, 1.0, long))


class Forest(Fitted):
    """Isolation forest (Liu, Ting and Zhou 2008), https://doi.org/10.1109/ICDM.2008.17.

    The score 2^(-mean depth / expected depth) of the paper, with its 100 trees of 256 images.

    Args:
        trees: number of trees.
        samples: images that each tree sees; all where there are fewer.

    Raises:
        GradbenchError: for a setting below 1.
    """

    learned = (*NODE_PARTS, "expected")

    def __init__(self, trees: int = 100, samples: int = 256):
        if any(type(value) is not int or value < 1 for value in (trees, samples)):
            raise GradbenchError(f"forest trees={trees} samples={samples}: whole numbers, from 1")
        self.trees, self.samples = trees, samples
        for name in self.learned:
            setattr(self, name, torch.empty(0))

    def fit(self, profiles: Tensor, seed: int = 0) -> Forest:
        """Grow the trees, and keep them as tables of (trees, nodes)."""
        count = min(self.samples, len(profiles))
        forest = IsolationForest(n_estimators=self.trees, max_samples=count, random_state=seed)
        forest.fit(profiles.numpy())
        most = max(tree.tree_.node_count for tree in forest.estimators_)
        tables = {name: np.zeros((self.trees, most)) for name in NODE_PARTS}
        for row, tree in enumerate(forest.estimators_):
            for name, values in _table(tree.tree_).items():
                tables[name][row, : len(values)] = values
        for name, table in tables.items():
            kind = np.float64 if name in ("threshold", "depth") else np.int64
            setattr(self, name, torch.from_numpy(table.astype(kind)))
        self.expected = torch.from_numpy(expected_depth(np.array(count))).clone()
        return self

    def distance(self, profiles: Tensor) -> Tensor:
        """Return (N,) scores in (0, 1)."""
        profiles = profiles.float().double()  # scikit-learn's trees see float32
        depth = torch.zeros(len(profiles), dtype=torch.float64)
        rows = torch.arange(len(profiles))
        for left, right, feature, threshold, ends in zip(
            self.left, self.right, self.feature, self.threshold, self.depth
        ):
            place = torch.zeros(len(profiles), dtype=torch.int64)
            while True:  # a leaf is its own child
                goes_left = profiles[rows, feature[place]] <= threshold[place]
                following = torch.where(goes_left, left[place], right[place])
                if torch.equal(following, place):
                    break
                place = following
            depth += ends[place]
        mean = depth / len(self.left)
        if self.expected == 0:  # trees of one image
            return torch.full_like(mean, 0.5)
        return torch.exp2(-mean / self.expected)


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
