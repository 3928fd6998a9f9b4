"""Maximum logit."""

from torch import Tensor

from gradbench.methods.base import Detector, Info, Outputs


def max_logit_score(logits: Tensor) -> Tensor:
    """Return minus the largest logit of (N, C), (N,): s = -max_i z_i (Hendrycks et al. 2022)."""
    return -logits.double().amax(1)


class MaxLogit(Detector):
    """Maximum logit (Hendrycks et al. 2022), with the sign turned."""

    info = Info(
        "Scaling Out-of-Distribution Detection for Real-World Settings",
        "ICML 2022",
        "https://arxiv.org/abs/1911.11132",
        "https://github.com/hendrycks/anomaly-seg",
    )
    supervision = "none"
    reads = ("logits",)

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) minus the largest logit."""
        return max_logit_score(outputs["logits"])
