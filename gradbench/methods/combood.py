"""The distance to a near neighbour joined with the Mahalanobis distance of extremes."""

from __future__ import annotations

import torch
from sklearn.preprocessing import PowerTransformer, StandardScaler
from torch import Tensor
from torch.nn import functional

from gradbench.methods.banks import check_neighbours, kth_distance
from gradbench.methods.base import Detector, Info, Outputs, Samples
from gradbench.methods.tuning import check_whole

NEAREST = 1e-12
"""Distance that counts for images equal to their k-th neighbour."""
FURTHEST = 1e100
"""Largest normalised extreme, so that the distance is finite."""


def yeo_johnson(values: Tensor, powers: Tensor) -> Tensor:
    """Return the transform of Yeo and Johnson (2000) of values (N, D) by powers (D,)."""
    # both branches are (1 + |x|)^p - 1 over p, with p the power or 2 - it
    p = torch.where(values >= 0, powers, 2 - powers)
    grown = values.abs().log1p()
    small = p.abs() < 1e-9
    return values.sign() * torch.where(small, grown, (p * grown).expm1() / torch.where(small, 1, p))


class CombOOD(Detector):
    """CombOOD (Rajasekaran et al. 2024): s = m^2 + sqrt(D) log d_k^2.

    d_k is the distance of h/|h|, of the D features h, to its k-th nearest among f's training
    images. m is the Mahalanobis distance of the extremes to those of the training images: largest
    and smallest input of every activation function and logit, each standardised and made normal by
    the transform of Yeo and Johnson; its covariance is added to the identity. In float64.

    As in the authors' code, where d_k^2 comes from an index of squared distances. Their reported
    numbers are of one run, and those on ImageNet are doubted.

    Args:
        k: which neighbour; 50 in the authors' code.

    Raises:
        GradbenchError: for a setting out of range, or training images fewer than k.
    """

    info = Info(
        "COMBOOD: A Semiparametric Approach for Detecting Out-of-distribution Data for Image "
        "Classification",
        "SDM 2024",
        "https://arxiv.org/abs/2602.07042",
        "https://github.com/rmagesh148/combood",
    )
    supervision = "none"
    reads = bank_reads = ("extremes", "logits", "features")
    learned = ("features", "transform", "precision")

    def __init__(self, k: int = 50):
        self.k = check_whole("combood k", k)
        self.features = self.transform = self.precision = torch.empty(0)

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> CombOOD:
        """Keep the directions of the features; fit transform (5, D) and precision of extremes.

        The rows of the transform: mean and deviation before it, powers, mean and deviation after.
        """
        self.features = functional.normalize(bank["features"], dim=1)
        check_neighbours("combood", self.k, self.features)
        extremes = _extremes(bank)
        before = StandardScaler().fit(extremes.numpy())
        powers = PowerTransformer(standardize=False).fit(before.transform(extremes.numpy()))
        rows = [torch.from_numpy(row) for row in (before.mean_, before.scale_, powers.lambdas_)]
        same = [torch.zeros_like(rows[0]), torch.ones_like(rows[0])]
        self.transform = torch.stack([*rows, *same])
        scale, mean = torch.std_mean(self._normalised(extremes), dim=0, correction=0)
        self.transform = torch.stack([*rows, mean, torch.where(scale > 0, scale, 1)])
        normal = self._normalised(extremes)
        covariance = normal.T @ normal / max(len(normal) - 1, 1)
        identity = torch.eye(len(covariance), dtype=torch.float64)
        self.precision = torch.linalg.inv(covariance + identity).contiguous()
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) sums of both distances."""
        extremes = self._normalised(_extremes(outputs))
        directions = functional.normalize(outputs["features"], dim=1)
        near = kth_distance(directions, self.features, self.k).clamp(min=NEAREST)
        far = ((extremes @ self.precision) * extremes).sum(1)
        return far + 2 * self.features.shape[1] ** 0.5 * near.log()

    def _normalised(self, extremes: Tensor) -> Tensor:
        mean, scale, powers, *after = self.transform
        normal = (yeo_johnson((extremes - mean) / scale, powers) - after[0]) / after[1]
        return normal.clamp(-FURTHEST, FURTHEST)


def _extremes(outputs: Outputs) -> Tensor:
    """Return (N, D) float64 extremes of activation functions and logits."""
    low, high = outputs["logits"].double().aminmax(dim=1)
    return torch.cat([outputs["extremes"].double(), high[:, None], -low[:, None]], dim=1)
