"""Relative Mahalanobis distance."""

from __future__ import annotations

import torch
from torch import Tensor

from gradbench.methods.banks import bank_of, bank_reads
from gradbench.methods.base import Detector, Info, Outputs, Samples
from gradbench.methods.gaussians import Gaussians


class RMDS(Detector):
    """Relative Mahalanobis distance (Ren et al. 2021) of the penultimate features.

    s = min_c MD_c(h) - MD_0(h): the squared distance to the Gaussian of a class (means of the
    true classes, one covariance) less that to a single Gaussian of all images. In float64.

    Args:
        bank: `train` as published, or `hold_out`: clean images that f was not trained on.

    Raises:
        GradbenchError: for another bank.
    """

    info = Info(
        "A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection",
        "ICML Workshop on Uncertainty and Robustness in Deep Learning 2021",
        "https://arxiv.org/abs/2106.09022",
    )
    supervision = "none"
    reads = ("features",)
    learned = ("classes", "background")

    def __init__(self, bank: str = "train"):
        self.bank_reads, self.hold_out_reads = bank_reads(bank, ("features", "labels"))
        self.classes = self.background = Gaussians(torch.empty(0), torch.empty(0))

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> RMDS:
        """Fit the Gaussians of the classes and that of all images."""
        normal = bank_of(self, bank, fit)
        self.classes = Gaussians.fit(normal["features"], normal["labels"])
        self.background = Gaussians.fit(normal["features"], torch.zeros_like(normal["labels"]))
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) differences of squared distances."""
        features = outputs["features"]
        return 2 * (self.classes.nearest(features) - self.background.nearest(features))
