"""Gradients that are not zero where they are expected to be."""

from torch import Tensor

from gradbench.methods.base import Detector, Info, Outputs


class GAIAZ(Detector):
    """GAIA-Z (Chen et al. 2023): s = mean over channels of the squared share of gradients not 0.

    The gradients are those of the largest logit with respect to the outputs of all batch
    normalisations, as in the authors' code for CIFAR-10; a channel's share is that of its
    positions, see `GradientDensity`. It takes one pass back.
    """

    info = Info(
        "GAIA: Delving into Gradient-based Attribution Abnormality for Out-of-distribution "
        "Detection",
        "NeurIPS 2023",
        "https://arxiv.org/abs/2311.09620",
        "https://github.com/JGEthanChen/GAIA-OOD",
    )
    supervision = "none"
    reads = ("gradient_density",)

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) means of squared shares, from 0 to 1."""
        return outputs["gradient_density"].double().sum(1)
