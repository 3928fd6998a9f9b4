"""Relations to training images in feature space and in the softmax."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from gradbench.errors import GradbenchError
from gradbench.methods.banks import BLOCK
from gradbench.methods.base import Detector, Info, Outputs, Samples
from gradbench.methods.tuning import check_whole

WEAKEST = 0.03
"""Relations up to this count as none, as in the authors' code."""


class Relation(Detector):
    """Neural relation graph (Kim et al. 2023): s = -sum_i k_i^t over training images i.

    k_i = max(0, cos(h, h_i)) p·p_i, for features h and softmax probabilities p of f; relations up
    to 0.03 are left out. Normal images have many strong relations. Products in float32, sums in
    float64.

    OpenOOD's code chooses t for each network on validation images of both kinds from 1, 2, 4, 6 and
    8; here nothing is chosen, and 1 is the authors' for this task.

    Args:
        power: t, above 0.
        hop: only every hop-th training image counts; 1 for all.

    Raises:
        GradbenchError: for a setting out of range.
    """

    info = Info(
        "Neural Relation Graph: A Unified Framework for Identifying Label Noise and Outlier Data",
        "NeurIPS 2023",
        "https://arxiv.org/abs/2301.12321",
        "https://github.com/snu-mllab/Neural-Relation-Graph",
    )
    supervision = "none"
    reads = bank_reads = ("logits", "features")
    learned = ("features", "probabilities")

    def __init__(self, power: float = 1, hop: int = 1):
        if not 0 < power < float("inf"):
            raise GradbenchError(f"relation power={power}: a number above 0")
        self.power, self.hop = power, check_whole("relation hop", hop)
        self.features = self.probabilities = torch.empty(0)

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> Relation:
        """Keep the directions of the features and the probabilities of training images."""
        features, probabilities = _nodes(bank)
        self.features = features[:: self.hop].clone()
        self.probabilities = probabilities[:: self.hop].clone()
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) minus the sums of relations."""
        rows = max(BLOCK // len(self.features), 1)
        sums = []
        for features, probabilities in zip(*(part.split(rows) for part in _nodes(outputs))):
            relations = (features @ self.features.T).clamp_(min=0)
            relations *= probabilities @ self.probabilities.T
            functional.threshold_(relations, WEAKEST, 0)
            if self.power != 1:
                relations.pow_(self.power)
            sums.append(relations.sum(1, dtype=torch.float64))
        return -torch.cat(sums)


def _nodes(outputs: Outputs) -> tuple[Tensor, Tensor]:
    """Return the directions of the features and the softmax, float32."""
    directions = functional.normalize(outputs["features"].double(), dim=1)
    return directions.float(), outputs["logits"].double().softmax(1).float()
