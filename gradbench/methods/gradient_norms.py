"""Squared gradient norms made ready for a classifier, and compared with those of their class."""

from __future__ import annotations

import torch
from torch import Tensor

from gradbench.errors import GradbenchError
from gradbench.methods.base import Fitted

CHOICES = ("log_standard", "standard", "none")
FLOOR = 1e-12


def log_norms(norms: Tensor) -> Tensor:
    """Return log(v + 1e-12) in float64."""
    return (norms.double() + FLOOR).log()


def deviation(values: Tensor, mean: Tensor) -> Tensor:
    """Return the standard deviation of each column, 1 for a constant one, which carries nothing."""
    std = values.std(0, correction=0)
    # the deviation of a constant is not always 0 after rounding
    return torch.where(std > 1e-12 * mean.abs(), std, 1)


class Normaliser(Fitted):
    """Standardises the squared norms of each parameter tensor.

    Args:
        how: `log_standard` takes log(v + 1e-12) first (squared norms span many decades),
            `standard` does not, `none` leaves the features as they are.

    Raises:
        GradbenchError: for another `how`.
    """

    learned = ("mean", "std")

    def __init__(self, how: str = "log_standard"):
        if how not in CHOICES:
            raise GradbenchError(f"normalisation={how}: choose {', '.join(CHOICES)}")
        self.how = how
        self.mean = self.std = torch.empty(0)

    def fit(self, norms: Tensor) -> Normaliser:
        """Take mean and standard deviation of (N, d) squared norms."""
        values = self._raw(norms)
        self.mean = values.mean(0)
        self.std = deviation(values, self.mean)
        if self.how == "none":
            self.mean, self.std = torch.zeros_like(self.mean), torch.ones_like(self.std)
        return self

    def __call__(self, norms: Tensor) -> Tensor:
        """Map (N, d) squared norms to (N, d) features, float32."""
        return ((self._raw(norms) - self.mean) / self.std).float()

    def _raw(self, norms: Tensor) -> Tensor:
        return log_norms(norms) if self.how == "log_standard" else norms.double()


def class_means(values: Tensor, logits: Tensor) -> Tensor:
    """Return the means (C, d) of (N, d) values over the images of every predicted class, float64.

    The predicted class is that of the largest logit: it is known of every image. A class that is
    predicted for no image has the mean of all of them.
    """
    values, predicted = values.double(), logits.argmax(1)
    counts = predicted.bincount(minlength=logits.shape[1])
    sums = torch.zeros(len(counts), values.shape[1], dtype=torch.float64)
    sums.index_add_(0, predicted, values)
    means = sums / counts.clamp(min=1)[:, None]
    return torch.where(counts[:, None] > 0, means, values.mean(0))


def class_profile(values: Tensor, logits: Tensor, means: Tensor) -> Tensor:
    """Return (N, d) values less the mean of each image's predicted class, in float64."""
    return values.double() - means[logits.argmax(1)]
