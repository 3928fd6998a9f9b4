"""The raw size of the papers' gradients, without any detector."""

from torch import Tensor

from gradbench.methods.base import Detector, Outputs
from gradbench.methods.gradient import PAPER


class GradientUncertainty(Detector):
    """Sum of the squared gradient norms of all parameter tensors (Lee and AlRegib 2020).

    s = sum_t ||dJ/dtheta_t||^2 for the loss J against the confounding label: larger = more
    uncertain.

    Differs from the paper: there the norms go to a trained H, see `gradient`; the sum is the score
    that needs no training.

    Differs from pytorch-ood's detector of that paper in loss and sign: it takes a softmax before
    the binary cross entropy, adds the terms, and turns the sign of the sum, which makes it minus
    the score here with `loss=ce_sum_one_hot`. Its loss compares the classes (gradient N p_i - 1 of
    logit i, 0 where all are equal), that of the paper looks at each by itself (gradient
    (sigmoid(z_i) - 1) / N, near 0 where all are large). Where f is confident both norms tend to be
    large, so the two scores run about opposite: rank correlation -0.87 on the tests' network.

    Args:
        label, loss: of the gradients read.
    """

    info = PAPER
    supervision = "none"

    def __init__(self, label: str = "ones", loss: str = "bce"):
        self.source = f"squared_norms/{label}/{loss}"
        self.reads = (self.source,)

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) sums."""
        return outputs[self.source].double().sum(1)
