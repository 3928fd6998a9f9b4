"""Distance to the k-th nearest neighbour in feature space."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from gradbench.methods.banks import bank_of, bank_reads, check_neighbours, kth_distance
from gradbench.methods.base import Detector, Info, Outputs, Samples
from gradbench.methods.tuning import check_whole


class KNN(Detector):
    """Deep nearest neighbours (Sun et al. 2022): s = ||h/|h| - (h/|h|)_(k)|| for features h.

    The k-th nearest is sought among the penultimate features of f's training images, all divided
    by their norm; k = 50 is the paper's value for CIFAR-10 (200 for CIFAR-100, 1,000 for ImageNet).

    Differs from the paper: the distance is not squared, which changes no order.

    Args:
        k: which neighbour.
        bank: `train` as published, or `hold_out`: clean images that f was not trained on.

    Raises:
        GradbenchError: for a setting out of range, or a bank of fewer than k images.
    """

    info = Info(
        "Out-of-Distribution Detection with Deep Nearest Neighbors",
        "ICML 2022",
        "https://arxiv.org/abs/2204.06507",
        "https://github.com/deeplearning-wisc/knn-ood",
    )
    supervision = "none"
    reads = ("features",)
    learned = ("features",)

    def __init__(self, k: int = 50, bank: str = "train"):
        self.k = check_whole("knn k", k)
        self.bank_reads, self.hold_out_reads = bank_reads(bank, ("features",))
        self.features = torch.empty(0)

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> KNN:
        """Keep the directions of the features of the bank."""
        normal = bank_of(self, bank, fit)
        self.features = functional.normalize(normal["features"], dim=1)
        check_neighbours("knn", self.k, self.features)
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) distances, in [0, 2]."""
        queries = functional.normalize(outputs["features"], dim=1)
        return kth_distance(queries, self.features, self.k)
