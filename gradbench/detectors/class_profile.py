"""The gradient profile of an image beside that of its predicted class; the fits of one class."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gradbench.detectors.profile import FLOOR


class ClassProfile:
    """Log squared gradient norms less the mean of the predicted class, in float64.

    The predicted class is that of the largest logit: it is known of every image. A class that is
    predicted for no image of the fit has the mean of all of them.
    """

    def __init__(self):
        self.means = torch.empty(0)

    def fit(self, norms: Tensor, logits: Tensor) -> ClassProfile:
        """Take the means of (N, d) squared norms whose images have logits (N, C)."""
        logs, predicted = log_norms(norms), logits.argmax(1)
        counts = predicted.bincount(minlength=logits.shape[1])
        sums = torch.zeros(len(counts), logs.shape[1], dtype=torch.float64)
        sums.index_add_(0, predicted, logs)
        means = sums / counts.clamp(min=1)[:, None]
        self.means = torch.where(counts[:, None] > 0, means, logs.mean(0))
        return self

    def __call__(self, norms: Tensor, logits: Tensor) -> Tensor:
        """Map (N, d) squared norms and (N, C) logits to (N, d) profiles."""
        return log_norms(norms) - self.means[logits.argmax(1)]

    def state(self) -> dict[str, Tensor]:
        """Return the means, (C, d)."""
        return {"means": self.means}

    def load(self, state: Mapping[str, Tensor]) -> ClassProfile:
        """Take over the means."""
        self.means = state["means"]
        return self


def log_norms(norms: Tensor) -> Tensor:
    """Return log(v + 1e-12) in float64."""
    return (norms.double() + FLOOR).log()
