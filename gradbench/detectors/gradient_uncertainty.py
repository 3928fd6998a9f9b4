"""The raw size of the papers' gradients, without any detector."""

from torch import Tensor

from gradbench.detectors.base import Detector, Outputs
from gradbench.detectors.gradient import PAPER


class GradientUncertainty(Detector):
    """Sum of the squared gradient norms of all parameter tensors (Lee and AlRegib 2020).

    s = sum_t ||dJ/dtheta_t||^2 for the loss J against the confounding label: larger = more
    uncertain.

    Differs from the paper: there the norms go to a trained H, see `gradient`; the sum is the score
    that needs no training.

    Args:
        label: confounding label of the gradients read.
        loss: loss of the gradients read.
    """

    info = PAPER
    supervision = "none"

    def __init__(self, label: str = "ones", loss: str = "bce"):
        self.source = f"squared_norms/{label}/{loss}"
        self.reads = (self.source,)

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) sums."""
        return outputs[self.source].double().sum(1)
