"""The fast gradient sign method."""

from __future__ import annotations

from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.challenges.attacks.base import Adversarial
from gradbench.challenges.attacks.objectives import away_from
from gradbench.challenges.attacks.sign_steps import sign_steps
from gradbench.challenges.base import CleanBatch


class FGSM(Adversarial):
    """One step of size epsilon against the true label (Goodfellow, Shlens and Szegedy 2015).

    x' = clip(x + epsilon sign(dJ/dx)), J the cross entropy.

    Differs from the paper: sign(0) = +1, as in the code of Lee et al. (2018); the gradient is taken
    of the log-odds, see `objectives.log_odds`; pixels are rounded to the grid towards the clean
    image, so the perturbation never exceeds epsilon.

    Args:
        epsilon: largest change of a pixel, in [0, 1] pixel units.
        keep: see `Adversarial`.
        noisy_negatives: see `Adversarial`.
        noise: see `Adversarial`.

    Raises:
        GradbenchError: for a setting out of range.
    """

    family = "fgsm"

    def __init__(
        self,
        *,
        epsilon: float | str = 0.05,
        keep: str = "all",
        noisy_negatives: bool = False,
        noise: float = 0.0625,
    ):
        super().__init__(self.real("epsilon", epsilon), keep, noisy_negatives, noise)

    def attack(self, clean: CleanBatch, strength: float, seed: int, network: Backbone) -> Tensor:
        """Return attacked grey levels."""
        size = 255 * strength
        return sign_steps(network, clean.grey, clean.grey, size, [size], away_from(clean.labels))
