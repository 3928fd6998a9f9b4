"""Disagreement of several networks, or of several passes of one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from gradbench.errors import unknown
from gradbench.methods.base import Detector, Info, Outputs
from gradbench.outputs.members import MEMBERS


def variance(logits: Tensor) -> Tensor:
    """Return the variance of the probability of a class, mean over the classes, (N,).

    Over the M predictions of (N, M, C) logits, divided by M - 1.
    """
    return logits.double().softmax(2).var(1).mean(1)


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy of the mean of the predictions of (N, M, C) logits, (N,)."""
    mean = logits.double().log_softmax(2).logsumexp(1) - math.log(logits.shape[1])
    return -(mean.exp() * mean).sum(1)


def mutual_information(logits: Tensor) -> Tensor:
    """Return the mean divergence KL(p_m || p) of predictions from their mean p, (N,).

    It is the entropy of the mean less the mean of the entropies. With p_m = p (1 + d) it is the sum
    of p ((1 + d) log(1 + d) - d), whose terms are never negative: small values keep their digits.
    """
    each = logits.double().softmax(2)
    mean = each.mean(1, keepdim=True)
    apart = (each - mean) / mean.clamp(min=1e-300)
    terms = torch.where(apart > -1, (1 + apart) * apart.log1p(), 0) - apart
    return (mean * terms).sum(2).mean(1)


MEASURES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "variance": variance,
    "entropy": entropy,
    "mutual_information": mutual_information,
}


class Ensemble(Detector):
    """A deep ensemble (Lakshminarayanan et al. 2017): all networks of the run, f among them.

    Of the softmax probabilities p_m of M networks and their mean p: `variance` is
    mean_c sum_m (p_mc - p_c)^2 / (M - 1), `entropy` is -sum_c p_c log p_c, the score of the paper,
    and `mutual_information` is mean_m KL(p_m || p), the paper's disagreement over M. In float64.

    Every network of the run has the same score of an image, so that rows of the same images are
    alike; attacked images are those of the row's own network.

    Differs from the paper: networks are trained as the run says, without adversarial training.

    Args:
        measure: `variance`, `entropy` or `mutual_information`.

    Raises:
        GradbenchError: for another measure; in a run of one network.
    """

    info = Info(
        "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles",
        "NeurIPS 2017",
        "https://arxiv.org/abs/1612.01474",
    )
    supervision = "none"
    reads = (MEMBERS,)

    def __init__(self, measure: str = "variance"):
        if measure not in MEASURES:
            raise unknown("measure", str(measure), MEASURES)
        self.measure = measure

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) disagreements."""
        return MEASURES[self.measure](outputs[self.reads[0]])
