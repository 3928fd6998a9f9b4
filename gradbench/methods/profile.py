"""Squared gradient norms made ready for a classifier."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from gradbench.errors import GradbenchError

CHOICES = ("log_standard", "standard", "none")
FLOOR = 1e-12


class Normaliser:
    """Standardises the squared norms of each parameter tensor.

    Args:
        how: `log_standard` takes log(v + 1e-12) first (squared norms span many decades),
            `standard` does not, `none` leaves the features as they are.

    Raises:
        GradbenchError: for another `how`.
    """

    def __init__(self, how: str = "log_standard"):
        if how not in CHOICES:
            raise GradbenchError(f"normalisation={how}: choose {', '.join(CHOICES)}")
        self.how = how
        self.mean = self.std = torch.empty(0)

    def fit(self, norms: Tensor) -> Normaliser:
        """Take mean and standard deviation of (N, d) squared norms."""
        values = self._raw(norms)
        self.mean, std = values.mean(0), values.std(0, correction=0)
        # a tensor without gradient, or a constant one, carries nothing; the deviation of a
        # constant is not always 0 after rounding
        self.std = torch.where(std > 1e-12 * self.mean.abs(), std, 1)
        if self.how == "none":
            self.mean, self.std = torch.zeros_like(self.mean), torch.ones_like(self.std)
        return self

    def __call__(self, norms: Tensor) -> Tensor:
        """Map (N, d) squared norms to (N, d) features, float32."""
        return ((self._raw(norms) - self.mean) / self.std).float()

    def state(self) -> dict[str, Tensor]:
        """Return mean and standard deviation."""
        return {"mean": self.mean, "std": self.std}

    def load(self, state: Mapping[str, Tensor]) -> Normaliser:
        """Take over mean and standard deviation."""
        self.mean, self.std = state["mean"], state["std"]
        return self

    def _raw(self, norms: Tensor) -> Tensor:
        return log_norms(norms) if self.how == "log_standard" else norms.double()


def log_norms(norms: Tensor) -> Tensor:
    """Return log(v + 1e-12) in float64."""
    return (norms.double() + FLOOR).log()


def rank_auroc(scores: np.ndarray, abnormal: np.ndarray) -> float:
    """Return P(abnormal > normal) + P(equal) / 2 of (N,) scores, fast enough for every epoch."""
    ranks = rankdata(scores)
    ones = int(abnormal.sum())
    pairs = ones * (len(scores) - ones)
    return float((ranks[abnormal].sum() - ones * (ones + 1) / 2) / pairs)
