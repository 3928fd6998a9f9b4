"""Virtual-logit matching."""

from __future__ import annotations

import torch
from torch import Tensor

from gradbench.errors import GradbenchError
from gradbench.methods.banks import bank_of, bank_reads
from gradbench.methods.base import Detector, Info, Outputs, Samples
from gradbench.methods.energy import energy_score
from gradbench.methods.tuning import check_whole


def principal_dimension(width: int) -> int:
    """Return the dimension of the principal space for features of a width.

    1,000 from 2,048 features on, otherwise 512, as in the authors' code; where that is not smaller
    than the width, half of the features, so that a residual is left (256 for 512, as OpenOOD has
    it for ResNet-18 on CIFAR-10; pytorch-ood keeps 512 of 512, and its scores are NaN).
    """
    published = 1000 if width >= 2048 else 512
    return published if width > published else width // 2


class ViM(Detector):
    """Virtual-logit matching (Wang et al. 2022): s = alpha |R^T (h - u)| - log sum_i exp z_i.

    u = -W^+ b is the point of the feature space with the smallest logits, R spans the directions of
    least variance around it, and alpha makes the mean of alpha |R^T (h - u)| over the bank that of
    the largest logit. In float64.

    Differs from the paper: for networks narrower than its principal space that is half the width,
    see `principal_dimension`.

    Args:
        dimension: of the principal space; None for the authors' rule.
        bank: `train` as published, or `hold_out`: clean images that f was not trained on.

    Raises:
        GradbenchError: for a setting out of range, told at the fit where it depends on the width.
    """

    info = Info(
        "ViM: Out-Of-Distribution with Virtual-logit Matching",
        "CVPR 2022",
        "https://arxiv.org/abs/2203.10807",
        "https://github.com/haoqiwang/vim",
    )
    supervision = "none"
    reads = ("logits", "features")
    learned = ("origin", "space", "alpha")

    def __init__(self, dimension: int | None = None, bank: str = "train"):
        self.dimension = None if dimension is None else check_whole("vim dimension", dimension)
        self.bank_reads, self.hold_out_reads = bank_reads(bank, self.reads, head=True)
        self.origin = self.space = self.alpha = torch.empty(0)

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> ViM:
        """Find origin, residual space and scale."""
        normal = bank_of(self, bank, fit)
        features, logits = normal["features"].double(), normal["logits"].double()
        width = features.shape[1]
        dimension = self.dimension or principal_dimension(width)
        if dimension >= width:
            raise GradbenchError(f"vim dimension={dimension}: choose 1 to {width - 1} for features "
                                 f"of width {width}")  # fmt: skip
        weight, bias = bank["head/weight"].double(), bank["head/bias"].double()
        self.origin = -torch.linalg.pinv(weight) @ bias
        centred = features - self.origin
        moment = centred.T @ centred / len(centred)
        vectors = torch.linalg.eigh(moment).eigenvectors  # ascending eigenvalues
        self.space = vectors[:, : width - dimension].contiguous()
        residual = self._residual(features).mean()
        # features that fill a subspace leave no residual, and nothing to be matched
        self.alpha = (
            logits.amax(1).mean() / residual if residual > 0 else torch.zeros_like(residual)
        )
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) virtual logits minus the log-sum-exp of the real ones."""
        return self.alpha * self._residual(outputs["features"]) + energy_score(outputs["logits"])

    def _residual(self, features: Tensor) -> Tensor:
        return ((features.double() - self.origin) @ self.space).norm(dim=1)
