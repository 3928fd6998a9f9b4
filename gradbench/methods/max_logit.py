"""Maximum logit."""

from torch import Tensor

from gradbench.methods.base import Detector, Info, Outputs


class MaxLogit(Detector):
    """Maximum logit (Hendrycks et al. 2022), with the sign turned: s = -max_i z_i."""

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
        return -outputs["logits"].double().amax(1)
