"""Generalized entropy of the softmax."""

from __future__ import annotations

from torch import Tensor

from gradbench.errors import GradbenchError
from gradbench.methods.base import Detector, Info, Outputs
from gradbench.methods.tuning import check_whole


def generalized_entropy(logits: Tensor, gamma: float = 0.1, top: int = 100) -> Tensor:
    """Return sum_j p_j^gamma (1 - p_j)^gamma over the `top` likeliest classes of (N, C) logits.

    (N,), in float64; 1 - p of the likeliest class is the sum of the others, so that images that f
    is sure of keep their order.
    """
    p = logits.double().softmax(1).sort(1, descending=True).values
    rest = 1 - p
    rest[:, 0] = p[:, 1:].sum(1)
    return (p * rest)[:, :top].pow(gamma).sum(1)


class GEN(Detector):
    """Generalized entropy (Liu, Lochman and Zach 2023): s = sum_j p_j^gamma (1 - p_j)^gamma.

    The sum runs over the M likeliest classes; where there are no more than M, over all.

    Args:
        gamma: above 0; 0.1 in the paper.
        top: M, 100 in the authors' code and in OpenOOD's.

    Raises:
        GradbenchError: for a setting out of range.
    """

    info = Info(
        "GEN: Pushing the Limits of Softmax-Based Out-of-Distribution Detection",
        "CVPR 2023",
        "https://openaccess.thecvf.com/content/CVPR2023/html/Liu_GEN_Pushing_the_Limits_of_"
        "Softmax-Based_Out-of-Distribution_Detection_CVPR_2023_paper.html",
        "https://github.com/XixiLiu95/GEN",
    )
    supervision = "none"
    reads = ("logits",)

    def __init__(self, gamma: float = 0.1, top: int = 100):
        if not 0 < gamma < float("inf"):
            raise GradbenchError(f"gen gamma={gamma}: a number above 0")
        self.gamma, self.top = gamma, check_whole("gen top", top)

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) entropies."""
        return generalized_entropy(outputs["logits"], self.gamma, self.top)
