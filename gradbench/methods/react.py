"""Energy after rectified activations."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gradbench.errors import GradbenchError
from gradbench.methods.banks import HEAD
from gradbench.methods.base import Detector, Info, Outputs, Samples
from gradbench.methods.energy import energy_score


class ReAct(Detector):
    """ReAct (Sun, Guo and Li 2021): the energy of the logits W min(h, c) + b.

    c is a percentile, 90 in the paper, of all penultimate activations on f's training images. In
    float64.

    Args:
        percentile: of the activations, above 0 and up to 100.

    Raises:
        GradbenchError: if it is out of range.
    """

    info = Info(
        "ReAct: Out-of-distribution Detection With Rectified Activations",
        "NeurIPS 2021",
        "https://arxiv.org/abs/2111.12797",
        "https://github.com/deeplearning-wisc/react",
    )
    supervision = "none"
    reads = ("features",)
    bank_reads = ("features", *HEAD)
    learned = ("ceiling", "weight", "bias")

    def __init__(self, percentile: float = 90):
        if not 0 < percentile <= 100:
            raise GradbenchError(f"react percentile={percentile}: above 0, up to 100")
        self.percentile = percentile
        self.weight = self.bias = self.ceiling = torch.empty(0)

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> ReAct:
        """Take the percentile of the bank and keep the last layer."""
        ceiling = np.percentile(bank["features"].numpy(), self.percentile)
        self.ceiling = torch.tensor(float(ceiling), dtype=torch.float64)
        self.weight, self.bias = (bank[name].double() for name in HEAD)
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) energies."""
        rectified = outputs["features"].double().clamp(max=self.ceiling)
        return energy_score(rectified @ self.weight.T + self.bias)
