"""Distance of the features to the nearest class, by the kernel of DUQ."""

from __future__ import annotations

import torch
from torch import Tensor

from gradbench.methods.base import Detector, Info, Outputs, Samples


class DUQDistance(Detector):
    """The uncertainty of DUQ (van Amersfoort et al. 2020) on the features of any network.

    s = min_c |h - e_c|^2 / n with h the n features and e_c their mean over f's training images of
    class c, by true labels. The paper's certainty is the largest kernel value, max_c K_c with
    K_c = exp(-|h - e_c|^2 / (2 n sigma^2)), and s = -2 sigma^2 log max_c K_c: the length scale
    sigma, one for all classes, changes no order and is left out, and no value underflows. In
    float64.

    Differs from the paper: there the network is trained with these kernels as its output, a
    penalty on the gradients of the pixels, centroids as moving averages and a linear map W_c of
    the features for each class. Here f is as it was trained and W_c is the identity.
    """

    info = Info(
        "Uncertainty Estimation Using a Single Deep Deterministic Neural Network",
        "ICML 2020",
        "https://arxiv.org/abs/2003.02037",
        "https://github.com/y0ast/deterministic-uncertainty-quantification",
    )
    supervision = "none"
    reads = ("features",)
    bank_reads = ("features", "labels")
    learned = ("centroids",)

    def __init__(self):
        self.centroids = torch.empty(0)

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> DUQDistance:
        """Keep the means of the features of every class that has an image."""
        features, labels = bank["features"].double(), bank["labels"]
        self.centroids = torch.stack([features[labels == c].mean(0) for c in labels.unique()])
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) mean squared differences from the nearest centroid."""
        features = outputs["features"].double()
        # differences come before the squares: a small distance of large features keeps its digits
        each = [(features - centroid).square().mean(1) for centroid in self.centroids]
        return torch.stack(each, dim=1).amin(1)
