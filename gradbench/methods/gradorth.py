"""Gradients of the last layer projected on the principal space of f's training images."""

from __future__ import annotations

import torch
from torch import Tensor

from gradbench.errors import GradbenchError
from gradbench.methods.base import Detector, Info, Outputs, Samples


class GradOrth(Detector):
    """GradOrth (Behpour et al. 2023): s = -|G V| of the gradient G with respect to the last weight.

    G is the gradient of the cross entropy of f's softmax p against the uniform distribution u, the
    outer product of p - u with the features h, and V holds the first right singular vectors of the
    features of f's training images, not centred, that carry a share of their squared length. So
    s = -|p - u| |V' h|, from a forward pass: what f knows has a large gradient in that space. In
    float64.

    The authors publish no code; uniform target, L2 norm and share are those of another
    implementation.

    Args:
        share: of the squared length, above 0 and up to 1.

    Raises:
        GradbenchError: for another share.
    """

    info = Info(
        "GradOrth: A Simple yet Efficient Out-of-Distribution Detection with Orthogonal "
        "Projection of Gradients",
        "NeurIPS 2023",
        "https://arxiv.org/abs/2308.00310",
    )
    supervision = "none"
    reads = ("logits", "features")
    bank_reads = ("features",)
    learned = ("space",)

    def __init__(self, share: float = 0.97):
        if not 0 < share <= 1:
            raise GradbenchError(f"gradorth share={share}: above 0, up to 1")
        self.share = share
        self.space = torch.empty(0)

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> GradOrth:
        """Find the principal space (D, k) of the features."""
        features = bank["features"].double()
        values, vectors = torch.linalg.eigh(features.T @ features)
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
        below = (values.cumsum(0) < self.share * values.sum()).sum()
        self.space = vectors[:, : int(below) + 1].contiguous()
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) minus the norms of the projected gradients."""
        p = outputs["logits"].double().softmax(1)
        inside = (outputs["features"].double() @ self.space).norm(dim=1)
        return -(p - 1 / p.shape[1]).norm(dim=1) * inside
