"""Maximum softmax probability, the baseline of every table."""

from torch import Tensor

from gradbench.methods.base import Detector, Info, Outputs


def msp_score(logits: Tensor) -> Tensor:
    """Return minus the largest softmax probability of logits (N, C): (N,) in [-1, -1/C].

    s = -max_i softmax(z)_i (Hendrycks and Gimpel 2017). Computed in float64, since saturated
    probabilities tie in float32.
    """
    return -logits.double().softmax(1).amax(1)


class MSP(Detector):
    """Maximum softmax probability (Hendrycks and Gimpel 2017), with the sign turned."""

    info = Info(
        "A Baseline for Detecting Misclassified and Out-of-Distribution Examples",
        "ICLR 2017",
        "https://arxiv.org/abs/1610.02136",
        "https://github.com/hendrycks/error-detection",
    )
    supervision = "none"
    reads = ("logits",)
    half = -0.5

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) minus the largest softmax probability."""
        return msp_score(outputs["logits"])
