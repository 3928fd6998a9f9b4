"""Energy, or neighbours and energy, joined with the gradient profile where that is suspicious."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradbench.methods.base import Detector, Outputs, Samples
from gradbench.methods.energy import energy_score
from gradbench.methods.gradient import OWN
from gradbench.methods.gradient_oneclass import GradientOneClass
from gradbench.methods.knn import KNN

TINY = 1e-12


class GradientFused(Detector):
    """s = z(energy) + max(0, z(log d)), with `knn` also + z(distance to the 50th neighbour).

    d is the Mahalanobis distance of `gradient_oneclass`; z takes off the mean and divides by the
    standard deviation on the hold-out. The profile of the gradients is added only where it is
    further away than that of the average clean image: it sees far images that the logits miss, and
    adds noise to near ones. The formula is fixed; nothing is tuned, and no challenge image is seen.

    Differs from the paper: the fusion is ours; Lee and AlRegib (2020) for the gradient norms.

    Args:
        knn: add the distance of `knn`, among f's training images.
        label, loss: of the gradients read.
    """

    info = OWN
    supervision = "none"

    def __init__(self, knn: bool = False, label: str = "ones", loss: str = "bce"):
        self._join(GradientOneClass("mahalanobis", label, loss), knn)

    def _join(self, oneclass: Detector, knn: bool) -> None:
        """Take the profile to rectify, and whether neighbours are added to energy."""
        self.oneclass = oneclass
        self.knn = KNN() if knn else None
        self.learned = ("mean", "std", "oneclass", *(["knn"] if knn else []))
        self.bank_reads = self.knn.bank_reads if knn else ()
        self.mean = self.std = torch.empty(0)

    @property
    def reads(self) -> Sequence[str]:
        """The outputs that the parts score, the logits of energy among them."""
        return (*self.oneclass.reads, *(self.knn.reads if self.knn else ()))

    @property
    def hold_out_reads(self) -> Sequence[str]:
        """The outputs that it scores: all parts are standardised on the hold-out."""
        return self.reads

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> GradientFused:
        """Fit the parts, then their means and standard deviations on the hold-out."""
        self.oneclass.fit(bank, fit, choose, seed)
        if self.knn:
            self.knn.fit(bank, fit, choose, seed)
        parts = self._parts(fit.clean)
        self.mean, std = parts.mean(0), parts.std(0, correction=0)
        self.std = torch.where(std > TINY, std, 1)
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) sums of standardised scores."""
        parts = (self._parts(outputs) - self.mean) / self.std
        return parts[:, 1:].sum(1) + parts[:, 0].clamp(min=0)

    def _parts(self, outputs: Outputs) -> Tensor:
        """Return (N, 2 or 3): log distance of the profile, energy, distance to the neighbour."""
        parts = [
            self.oneclass.score(outputs).clamp(min=TINY).log(),
            energy_score(outputs["logits"]),
        ]
        if self.knn:
            parts.append(self.knn.score(outputs))
        return torch.stack(parts, dim=1)
