"""GradNorm: gradients of the last layer against the uniform distribution."""

from torch import Tensor

from gradbench.gradients.last_layer import uniform_l1
from gradbench.methods.base import Detector, Info, Outputs


class GradNorm(Detector):
    """GradNorm (Huang, Geng and Li 2021), with the sign turned: larger gradients are normal there.

    s = -||d KL(uniform || softmax(z)) / dW||_1 of the last linear layer at temperature 1, in closed
    form from a forward pass, computed in float64.

    Differs from the paper: their code sums over the classes where the formula has the mean, so its
    values are as many times larger; the order is the same.
    """

    info = Info(
        "On the Importance of Gradients for Detecting Distributional Shifts in the Wild",
        "NeurIPS 2021",
        "https://arxiv.org/abs/2110.00218",
        "https://github.com/deeplearning-wisc/gradnorm_ood",
    )
    supervision = "none"
    reads = ("logits", "features")

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) minus the L1 norm of the gradient."""
        return -uniform_l1(outputs["features"].double(), outputs["logits"].double())
