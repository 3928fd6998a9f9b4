"""The iterative attack towards the least likely class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.challenges.attacks.base import Adversarial
from gradbench.challenges.attacks.objectives import laid_out, towards
from gradbench.challenges.attacks.sign_steps import sign_steps
from gradbench.challenges.base import CleanBatch


class IterLL(Adversarial):
    """Small steps towards the least likely class of the clean image (Kurakin et al. 2017).

    x <- clip(x - step sign(dJ/dx)) to within epsilon, J the cross entropy of the class that f
    gives the lowest logit to on the clean image. Success is any wrong class, as everywhere.

    Differs from the paper: as FGSM.

    Args:
        epsilon: largest change of a pixel, in [0, 1] pixel units.
        step: size of a step.
        steps: how many; the paper takes min(epsilon + 4, 1.25 epsilon) in grey levels.
        keep: see `Adversarial`.
        noisy_negatives: see `Adversarial`.
        noise: see `Adversarial`.

    Raises:
        GradbenchError: for a setting out of range.
    """

    family = "iterll"

    def __init__(
        self,
        *,
        epsilon: float | str = 8 / 255,
        step: float | str = 1 / 255,
        steps: int = 10,
        keep: str = "all",
        noisy_negatives: bool = False,
        noise: float = 0.0625,
    ):
        super().__init__(self.real("epsilon", epsilon), keep, noisy_negatives, noise)
        self.step = self.real("step", step, above=True)
        self.steps = self.whole("steps", steps)
        self.passes = self.steps + 0.5

    def settings(self) -> Mapping[str, Any]:
        """Return the steps."""
        return {"step": self.step, "steps": self.steps}

    def attack(self, clean: CleanBatch, strength: float, seed: int, network: Backbone) -> Tensor:
        """Return attacked grey levels."""
        with torch.no_grad():
            least = network(laid_out(clean.grey / 255)).argmin(1)
        steps = [255 * self.step] * self.steps
        return sign_steps(network, clean.grey, clean.grey, 255 * strength, steps, towards(least))
