"""Energy after scaled activations."""

from __future__ import annotations

import torch
from torch import Tensor

from gradbench.errors import GradbenchError
from gradbench.methods.banks import HEAD
from gradbench.methods.base import Detector, Info, Outputs, Samples
from gradbench.methods.energy import energy_score


def largest_part(features: Tensor, percentile: float) -> tuple[Tensor, Tensor]:
    """Return the largest features of each image, (N, D) with zeros elsewhere, and exp(s1 / s2).

    Kept are those above the percentile, at least one. s1 is the sum of all, s2 that of the kept
    ones, (N, 1); where s2 is not positive, as of images without an active feature, s1 / s2 is 1.
    """
    width = features.shape[1]
    kept = max(width - round(width * percentile / 100), 1)
    values, places = features.topk(kept, dim=1)
    total, part = features.sum(1, keepdim=True), values.sum(1, keepdim=True)
    ratio = torch.where(part > 0, total / part.clamp(min=1e-300), 1)
    # the ratio is at most D over the number of the kept: a large one must not overflow
    return torch.zeros_like(features).scatter(1, places, values), ratio.clamp(max=600).exp()


class Scale(Detector):
    """SCALE (Xu et al. 2024): the energy of the logits W (exp(r) h) + b.

    r is the sum of the features h over that of their largest ones, those above a percentile of
    the image's own. In float64.

    Args:
        percentile: of an image's features, 0 to below 100; 85 in the authors' code. OpenOOD chooses
            it on validation images of both kinds.

    Raises:
        GradbenchError: if it is out of range.
    """

    info = Info(
        "Scaling for Training Time and Post-hoc Out-of-distribution Detection Enhancement",
        "ICLR 2024",
        "https://arxiv.org/abs/2310.00227",
        "https://github.com/kai422/SCALE",
    )
    supervision = "none"
    reads = ("features",)
    bank_reads = HEAD
    learned = ("weight", "bias")

    def __init__(self, percentile: float = 85):
        if not 0 <= percentile < 100:
            name = type(self).__name__.lower()
            raise GradbenchError(f"{name} percentile={percentile}: from 0, below 100")
        self.percentile = percentile
        self.weight = self.bias = torch.empty(0)

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> Scale:
        """Keep the last layer."""
        self.weight, self.bias = (bank[name].double() for name in HEAD)
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) energies."""
        return energy_score(self._shaped(outputs["features"].double()) @ self.weight.T + self.bias)

    def _shaped(self, features: Tensor) -> Tensor:
        return features * largest_part(features, self.percentile)[1]
