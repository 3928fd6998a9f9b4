"""Energy of the logits."""

from torch import Tensor

from gradbench.errors import GradbenchError
from gradbench.methods.base import Detector, Info, Outputs


def energy_score(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the energy of logits (N, C), (N,): s = -T log sum_i exp(z_i / T) (Liu et al. 2020)."""
    return -temperature * (logits.double() / temperature).logsumexp(1)


class Energy(Detector):
    """Energy (Liu et al. 2020) of a network as it was trained, without their fine-tuning.

    Args:
        temperature: T, 1 in the paper.

    Raises:
        GradbenchError: if it is not above 0.
    """

    info = Info(
        "Energy-based Out-of-distribution Detection",
        "NeurIPS 2020",
        "https://arxiv.org/abs/2010.03759",
        "https://github.com/wetliu/energy_ood",
    )
    supervision = "none"
    reads = ("logits",)

    def __init__(self, temperature: float = 1.0):
        if not temperature > 0:
            raise GradbenchError(f"energy temperature={temperature}: a number above 0")
        self.temperature = temperature

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) energies."""
        return energy_score(outputs["logits"], self.temperature)
