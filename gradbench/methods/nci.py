"""Nearness of the features to the weights of the predicted class."""

from __future__ import annotations

import torch
from torch import Tensor

from gradbench.errors import GradbenchError
from gradbench.methods.banks import HEAD
from gradbench.methods.base import Detector, Info, Outputs, Samples


class NCI(Detector):
    """NCI (Liu and Qin 2025), neural collapse inspired, with the sign turned.

    s = -(w_m · (h - u) / |h - u| + alpha |h|_1) with w_m the weights of the predicted class and u
    the mean of the features h of f's training images: normal features point along w_m and are
    large. In float64.

    The authors' code, in OpenOOD, chooses alpha for each network on validation images of both kinds
    from 1e-4, 1e-3, 1e-2 and 1e-1; here nothing is chosen, and the default is where theirs begins.

    Args:
        alpha: weight of the norm, at least 0.

    Raises:
        GradbenchError: if it is out of range.
    """

    info = Info(
        "Detecting Out-of-Distribution through the Lens of Neural Collapse",
        "CVPR 2025",
        "https://arxiv.org/abs/2311.01479",
        "https://github.com/litianliu/NCI-OOD",
    )
    supervision = "none"
    reads = ("logits", "features")
    bank_reads = ("features", HEAD[0])
    learned = ("mean", "weight")

    def __init__(self, alpha: float = 1e-4):
        if not 0 <= alpha < float("inf"):
            raise GradbenchError(f"nci alpha={alpha}: a number from 0")
        self.alpha = alpha
        self.mean = self.weight = torch.empty(0)

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> NCI:
        """Keep the mean of the features and the weights of the last layer."""
        self.mean, self.weight = bank["features"].double().mean(0), bank[HEAD[0]].double()
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) minus nearness and weighted norm."""
        features = outputs["features"].double()
        directions = torch.nn.functional.normalize(features - self.mean, dim=1)
        near = (self.weight[outputs["logits"].argmax(1)] * directions).sum(1)
        return -near - self.alpha * features.abs().sum(1)
