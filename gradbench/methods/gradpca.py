"""Gradients of the last layer against the principal space of their class means."""

from __future__ import annotations

import torch
from torch import Tensor

from gradbench.errors import GradbenchError, unknown
from gradbench.methods.base import Detector, Info, Outputs, Samples

LOGITS = ("max", "sum")
MOST = 2**28
"""Numbers that the mean gradients of all classes may take."""


class GradPCA(Detector):
    """GradPCA (Seleznova et al. 2026): s = -|P (g - u)|^2 / |g - u|^2 of the last layer.

    g is the gradient of a logit with respect to weight and bias of the last layer, in closed form;
    u is the mean of the classes' mean gradients on f's training images, by their true labels, and P
    projects on the fewest principal directions of these means that hold a share of their trace. The
    gradient of the largest logit is h (and 1 for the bias) in the row of the predicted class; that
    of the sum of the logits is h in every row, so that s is that of the features themselves. In
    float64.

    Differs from the paper: of the last layer alone, where theirs may be of any parameters, as those
    of `gradpca_last_stage` and `gradpca_all` are. The paper has the largest logit; the sum, the
    centring and the share are those of the authors' code, as another implementation reports them.

    Args:
        logit: whose gradient: max or sum.
        share: of the trace, above 0 and up to 1; 0.99 in the authors' code.

    Raises:
        GradbenchError: for a setting out of range, training images of a single class, or more
            classes than the gradients of the largest logit can be kept for.
    """

    info = Info(
        "GradPCA: Leveraging NTK Alignment for Reliable Out-of-Distribution Detection",
        "ICLR 2026",
        "https://arxiv.org/abs/2505.16017",
        "https://github.com/mselezniova/GradPCA",
    )
    supervision = "none"
    reads = ("logits", "features")
    bank_reads = ("logits", "features", "labels")
    learned = ("mean", "space")

    def __init__(self, logit: str = "max", share: float = 0.99):
        if logit not in LOGITS:
            raise unknown("logit", str(logit), LOGITS)
        if not 0 < share <= 1:
            raise GradbenchError(f"gradpca share={share}: above 0, up to 1")
        self.logit, self.share = logit, share
        self.mean = self.space = torch.empty(0)

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> GradPCA:
        """Find the mean (rows, D + 1) and the principal space (rows, D + 1, k) of class means."""
        inputs, row, rows = self._gradients(bank)
        present, labels = bank["labels"].unique(return_inverse=True)
        if len(present) * rows * inputs.shape[1] > MOST:
            raise GradbenchError(
                f"gradpca logit={self.logit}: the mean gradients of {rows} classes are too large "
                "to be kept, choose logit=sum"
            )
        means = inputs.new_zeros(len(present) * rows, inputs.shape[1])
        means.index_add_(0, labels * rows + row, inputs)
        means = means.reshape(len(present), -1) / labels.bincount()[:, None]
        mean = means.mean(0)
        centred = means - mean
        values, vectors = torch.linalg.eigh(centred @ centred.T)
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
        rank = int((values > 1e-12 * means.square().sum()).sum())
        if not rank:
            raise GradbenchError("gradpca: its training images need two classes that f tells apart")
        below = (values.cumsum(0) < self.share * values.sum()).sum()
        kept = min(int(below) + 1, rank)
        space = (centred.T @ vectors[:, :kept]) / values[:kept].sqrt()
        self.mean = mean.reshape(rows, -1)
        self.space = space.reshape(rows, -1, kept)
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) minus the share of the squared length that lies in the space, -1 to 0."""
        inputs, row, rows = self._gradients(outputs)
        inside = -torch.einsum("rd,rdk->k", self.mean, self.space).repeat(len(inputs), 1)
        for one in range(rows):
            inside[row == one] += inputs[row == one] @ self.space[one]
        own = self.mean[row]
        others = self.mean.square().sum() - own.square().sum(1)
        length = (inputs - own).square().sum(1) + others
        return -inside.square().sum(1) / length.clamp(min=1e-300)

    def _gradients(self, outputs: Outputs) -> tuple[Tensor, Tensor, int]:
        """Return the only row (N, D + 1) of each gradient that is not 0, its number, their count.

        Those of the sum have equal rows, of which one is enough.
        """
        logits, features = outputs["logits"], outputs["features"].double()
        inputs = torch.cat([features, torch.ones_like(features[:, :1])], dim=1)
        row = logits.argmax(1)
        return (inputs, row, logits.shape[1]) if self.logit == "max" else (inputs, row * 0, 1)
