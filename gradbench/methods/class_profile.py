"""The profile of an image beside that of its predicted class; the fits of one class."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class ClassProfile:
    """Values of an image less the mean of its predicted class, in float64.

    The predicted class is that of the largest logit: it is known of every image. A class that is
    predicted for no image of the fit has the mean of all of them.
    """

    def __init__(self):
        self.means = torch.empty(0)

    def fit(self, values: Tensor, logits: Tensor) -> ClassProfile:
        """Take the means of (N, d) values whose images have logits (N, C)."""
        values, predicted = values.double(), logits.argmax(1)
        counts = predicted.bincount(minlength=logits.shape[1])
        sums = torch.zeros(len(counts), values.shape[1], dtype=torch.float64)
        sums.index_add_(0, predicted, values)
        means = sums / counts.clamp(min=1)[:, None]
        self.means = torch.where(counts[:, None] > 0, means, values.mean(0))
        return self

    def __call__(self, values: Tensor, logits: Tensor) -> Tensor:
        """Map (N, d) values and (N, C) logits to (N, d) profiles."""
        return values.double() - self.means[logits.argmax(1)]

    def state(self) -> dict[str, Tensor]:
        """Return the means, (C, d)."""
        return {"means": self.means}

    def load(self, state: Mapping[str, Tensor]) -> ClassProfile:
        """Take over the means."""
        self.means = state["means"]
        return self
