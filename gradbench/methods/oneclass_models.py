"""Models of the profiles of clean images: covariance, neighbours, mixture of Gaussians.

Each has `fit(profiles, seed)`, `distance(profiles)`, `state` and `load`; profiles are (N, d)
float64 with mean zero in every class. Settings are fixed, not tuned.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

import torch
from sklearn.covariance import ledoit_wolf
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from gradbench.errors import GradbenchError
from gradbench.methods.neighbours import check_count, kth_distance

TINY = 1e-12


class Mahalanobis:
    """Mahalanobis distance with the covariance of Ledoit and Wolf (2004), shared by all classes.

    https://doi.org/10.1016/S0047-259X(03)00096-4; shrinkage towards a multiple of the identity
    keeps it invertible where there are fewer images than tensors, or tensors without gradient.
    """

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

    def state(self) -> dict[str, Tensor]:
        """Return the precision."""
        return {"precision": self.precision}

    def load(self, state: Mapping[str, Tensor]) -> Mahalanobis:
        """Take over the precision."""
        self.precision = state["precision"]
        return self


class _Scaled:
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

    def __init__(self, k: int = 10):
        super().__init__()
        if type(k) is not int or k < 1:
            raise GradbenchError(f"knn k={k}: a whole number, at least 1")
        self.k = k
        self.bank = torch.empty(0)

    def fit(self, profiles: Tensor, seed: int = 0) -> Neighbours:
        """Keep the profiles."""
        check_count("gradient_oneclass", self.k, profiles)
        self.bank = self._fit_scale(profiles).float()
        return self

    def distance(self, profiles: Tensor) -> Tensor:
        """Return (N,) distances."""
        return kth_distance(profiles / self.scale, self.bank, self.k)

    def state(self) -> dict[str, Tensor]:
        """Return scales and profiles."""
        return {"scale": self.scale, "bank": self.bank}

    def load(self, state: Mapping[str, Tensor]) -> Neighbours:
        """Take over scales and profiles."""
        self.scale, self.bank = state["scale"], state["bank"]
        return self


class Mixture(_Scaled):
    """Minus the log density of a mixture of Gaussians with full covariances.

    Fitted by expectation maximisation (scikit-learn) from k-means, each tensor at unit variance.

    Args:
        components: number of Gaussians; as many as there are images where those are fewer.
        ridge: added to the variances, in units of the tensors' own.

    Raises:
        GradbenchError: for a setting out of range.
    """

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
        found = []
        for weight, mean, cholesky in zip(self.weights, self.means, self.cholesky):
            square = ((scaled - mean) @ cholesky).square().sum(1)
            log_det = cholesky.diagonal().log().sum()
            constant = weight.log() + log_det - 0.5 * len(mean) * math.log(2 * math.pi)
            found.append(constant - 0.5 * square)
        return -torch.stack(found, dim=1).logsumexp(1)

    def state(self) -> dict[str, Tensor]:
        """Return scales, weights, means and Cholesky factors of the precisions."""
        return {n: getattr(self, n) for n in ("scale", "weights", "means", "cholesky")}

    def load(self, state: Mapping[str, Tensor]) -> Mixture:
        """Take over scales and mixture."""
        for name in ("scale", "weights", "means", "cholesky"):
            setattr(self, name, state[name])
        return self
