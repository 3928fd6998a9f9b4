"""Energy after pruned and scaled activations."""

from torch import Tensor

from gradbench.methods.base import Info
from gradbench.methods.scale import Scale, largest_part


class ASH(Scale):
    """ASH-S (Djurisic et al. 2023): the energy of the logits W (exp(r) h') + b.

    h' are the features with all but the largest set to 0, those above a percentile of the image's
    own, and r is the sum of h over that of h'. It acts after the pooling, as the authors' code
    does. OpenOOD's rows of ASH are of another variant, ASH-B. In float64.

    Args:
        percentile: of an image's features, 0 to below 100; 90 in the authors' settings of CIFAR-10.

    Raises:
        GradbenchError: if it is out of range.
    """

    info = Info(
        "Extremely Simple Activation Shaping for Out-of-Distribution Detection",
        "ICLR 2023",
        "https://arxiv.org/abs/2209.09858",
        "https://github.com/andrijazz/ash",
    )

    def __init__(self, percentile: float = 90):
        super().__init__(percentile)

    def _shaped(self, features: Tensor) -> Tensor:
        pruned, factor = largest_part(features, self.percentile)
        return pruned * factor
