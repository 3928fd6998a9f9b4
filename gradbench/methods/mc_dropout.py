"""Disagreement of passes in which dropout is active."""

from __future__ import annotations

from gradbench.methods.base import Info
from gradbench.methods.ensemble import Ensemble
from gradbench.methods.tuning import check_whole


class MCDropout(Ensemble):
    """Monte Carlo dropout (Gal and Ghahramani 2016): f's own dropout, active in S passes.

    The passes take the place of the networks of an `Ensemble`; `variance` is that of Bayesian
    SegNet (Kendall et al. 2015) and of pytorch-ood. Batch normalisation stays in evaluation mode.
    Random numbers are a function of the image's pixels, so that a score can be had again.

    Args:
        passes: S, at least 2; 30 in pytorch-ood.
        measure: `variance`, `entropy` or `mutual_information`.

    Raises:
        GradbenchError: for a setting out of range; with a network that has no dropout module.
    """

    info = Info(
        "Dropout as a Bayesian Approximation: Representing Model Uncertainty in Deep Learning",
        "ICML 2016",
        "https://arxiv.org/abs/1506.02142",
        "https://github.com/yaringal/DropoutUncertaintyExps",
    )

    def __init__(self, passes: int = 30, measure: str = "variance"):
        super().__init__(measure)
        self.passes = check_whole("mc_dropout passes", passes, least=2)
        self.reads = (f"dropout_logits/{self.passes}",)
