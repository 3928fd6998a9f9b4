"""Distance to the decision boundaries."""

from __future__ import annotations

import torch
from torch import Tensor

from gradbench.methods.banks import HEAD
from gradbench.methods.base import Detector, Info, Outputs, Samples


class FDBD(Detector):
    """fDBD (Liu and Qin 2024), with the sign turned: far from every boundary is normal there.

    s = -mean_c (z_m - z_c) / |w_m - w_c| / |h - u| over all classes c but the predicted one, m: the
    distances of the features h to the hyperplanes between m and c, over that to the mean u of the
    features of f's training images. In float64.

    Differs from the paper: a class whose weights are those of the predicted one, to which there is
    no boundary, counts as distance 0. OpenOOD's code chooses by validation images of both kinds
    whether to divide by |h| instead.
    """

    info = Info(
        "Fast Decision Boundary based Out-of-Distribution Detector",
        "ICML 2024",
        "https://arxiv.org/abs/2312.11536",
        "https://github.com/litianliu/fDBD-OOD",
    )
    supervision = "none"
    reads = ("logits", "features")
    bank_reads = ("features", HEAD[0])
    learned = ("mean", "widths")

    def __init__(self):
        self.mean = self.widths = torch.empty(0)

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> FDBD:
        """Keep the mean of the features and the distances between the classes' weights."""
        self.mean = bank["features"].double().mean(0)
        weight = bank[HEAD[0]].double()
        self.widths = torch.stack([(weight - row).norm(dim=1) for row in weight])
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) minus the mean distance to a boundary, over that to the mean."""
        logits = outputs["logits"].double()
        largest, predicted = logits.max(1, keepdim=True)
        widths = self.widths[predicted.squeeze(1)]
        boundaries = torch.where(widths > 0, (largest - logits) / widths.clamp(min=1e-300), 0)
        away = (outputs["features"].double() - self.mean).norm(dim=1).clamp(min=1e-12)
        return -boundaries.sum(1) / (max(logits.shape[1] - 1, 1) * away)
