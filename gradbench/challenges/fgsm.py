"""The fast gradient sign method."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from gradbench.backbones.backbone import Backbone
from gradbench.challenges.base import Clean, Derived
from gradbench.errors import GradbenchError


class FGSM(Derived):
    """One step of size epsilon against the true label (Goodfellow, Shlens and Szegedy 2015).

    x' = clip(x + epsilon sign(dJ/dx)), J the cross entropy, sign(0) = +1 as in the code of Lee et
    al. (2018).

    Differs from the paper: pixels are rounded to the grid towards the clean image, so the
    perturbation never exceeds epsilon.

    Args:
        epsilon: largest change of a pixel, in [0, 1] pixel units.

    Raises:
        GradbenchError: if epsilon is not in [0, 1].
    """

    kind = "adversarial"
    family = "fgsm"
    uses_network = True

    def __init__(self, epsilon: float = 0.05):
        if not 0 <= epsilon <= 1:
            raise GradbenchError(f"fgsm epsilon={epsilon}: choose a value between 0 and 1")
        self.strengths = (epsilon,)

    def perturb(self, clean: Clean, strength: float, seed: int, network: Backbone | None) -> Tensor:
        """Return attacked grey levels; the network is left as it came."""
        with torch.enable_grad():
            images = (clean.grey / 255).requires_grad_()
            loss = functional.cross_entropy(network(images), clean.labels, reduction="sum")
            (slope,) = torch.autograd.grad(loss, images)
        step = torch.where(slope >= 0, 255.0 * strength, -255.0 * strength)
        return (clean.grey + step).clamp_(0, 255)
