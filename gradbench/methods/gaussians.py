"""Gaussians of the classes with one covariance, and the Mahalanobis distance to them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gaussians:
    """A Gaussian for each class, with means (C, D) and one precision (D, D), in float64.

    The precision is the pseudo-inverse of the covariance that all classes share.
    """

    means: Tensor
    precision: Tensor

    @classmethod
    def fit(cls, features: Tensor, labels: Tensor) -> Gaussians:
        """Fit to features (N, D) with labels (N,): class means, covariance pooled over classes.

        Classes without an image have no Gaussian. The covariance is the empirical one (divided by
        N); directions without variance are left out of the distance. It is inverted in units of
        each feature's deviation, so that features of unlike scales keep their digits.
        """
        features = features.double()
        present, labels = labels.unique(return_inverse=True)
        means = torch.zeros(len(present), features.shape[1], dtype=torch.float64)
        means.index_add_(0, labels, features)
        means /= labels.bincount(minlength=len(present))[:, None]
        centred = features - means[labels]
        scale = centred.square().mean(0).sqrt()
        # the deviation of a constant is not always 0 after rounding
        scale = torch.where(scale > 1e-12 * features.abs().amax(0), scale, 1)
        centred /= scale
        precision = torch.linalg.pinv(centred.T @ centred / len(features), hermitian=True)
        return cls(means, precision / scale / scale[:, None])

    def state(self) -> dict[str, Tensor]:
        """Return means and precision; empty where they are."""
        return {"means": self.means, "precision": self.precision} if len(self.means) else {}

    def load(self, state: Mapping[str, Tensor]) -> Gaussians:
        """Return the Gaussians of a state."""
        return Gaussians(state["means"], state["precision"])

    def distances(self, features: Tensor) -> Tensor:
        """Return half the squared Mahalanobis distance to every class, (N, C), at least 0.

        Differences are taken before the products, so that distances far smaller than the means
        keep their digits.
        """
        features = features.double()
        distances = []
        for mean in self.means:
            difference = features - mean
            distances.append(0.5 * ((difference @ self.precision) * difference).sum(1))
        return torch.stack(distances, dim=1).clamp_min_(0)

    def nearest(self, features: Tensor) -> Tensor:
        """Return half the squared distance to the nearest class, (N,): -M of Lee et al. 2018."""
        return self.distances(features).amin(1)

    def gradient(self, values: Tensor) -> Tensor:
        """Return the gradient of `nearest` at (N, D) features, the nearest class held fixed."""
        return (values - self.means[self.distances(values).argmin(1)]) @ self.precision

    def settings(self) -> Mapping[str, str]:
        """Return the digest of means and precision, for the keys of products."""
        return {"nearest_gaussian": self._digest}

    @cached_property
    def _digest(self) -> str:
        sha = hashlib.sha256()
        for tensor in (self.means, self.precision):
            sha.update(f"{tuple(tensor.shape)}".encode() + tensor.contiguous().numpy().tobytes())
        return sha.hexdigest()
