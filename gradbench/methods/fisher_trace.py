"""Trace of the Fisher information for one image."""

from torch import Tensor

from gradbench.errors import unknown
from gradbench.gradients.last_layer import LastLayer
from gradbench.methods.base import Detector, Info, Outputs

TENSORS = ("both", "weight", "bias", "all")


class FisherTrace(Detector):
    """Expected squared gradient norm (ExGrad, Igoe et al. 2022): s = sum_y p_y |d log p_y / dW|^2.

    The labels y are weighted as f believes in them, which makes s the trace of the Fisher
    information that the image has about the last layer: |h|^2 (1 - |p|^2) of its weight and
    1 - |p|^2 of its bias, from a forward pass, in float64.

    With `all` it is the trace for all parameters of f, the sum of the output `fisher_traces`, which
    takes a pass back for every class but one.

    Differs from the paper: squared L2 norms, as in the first version of the authors' code; a later
    one takes L1 norms.

    Args:
        tensor: whose gradient: weight, bias, or both of the last layer, as in the authors' code,
            or all.

    Raises:
        GradbenchError: for another tensor.
    """

    info = Info(
        "How Useful are Gradients for OOD Detection Really?",
        "arXiv 2022",
        "https://arxiv.org/abs/2205.10439",
        "https://github.com/cvigoe/EpiGrad",
    )
    supervision = "none"

    def __init__(self, tensor: str = "both"):
        if tensor not in TENSORS:
            raise unknown("tensor", str(tensor), TENSORS)
        self.tensor = tensor
        self.reads = ("fisher_traces",) if tensor == "all" else ("logits", "features")

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) traces."""
        if self.tensor == "all":
            return outputs["fisher_traces"].double().sum(1)
        logits = outputs["logits"].double()
        layer = LastLayer("head", outputs["features"].double(), logits)
        weight, bias = layer.class_squared_norms("ce")
        norms = {"weight": weight, "bias": bias, "both": weight + bias}[self.tensor]
        return (logits.softmax(1) * norms).sum(1)
