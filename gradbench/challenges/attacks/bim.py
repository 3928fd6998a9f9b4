"""The basic iterative method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.challenges.attacks.base import Adversarial
from gradbench.challenges.attacks.objectives import away_from
from gradbench.challenges.attacks.sign_steps import sign_steps
from gradbench.challenges.base import CleanBatch


class BIM(Adversarial):
    """Small steps against the true label, within epsilon (Kurakin, Goodfellow and Bengio 2017).

    x <- clip(x + step sign(dJ/dx)) to within epsilon of the clean image, from the clean image on.

    Differs from the paper: as FGSM, and the first step may have a size of its own. The code of Lee
    et al. (2018) has no budget; with epsilon = first_step + (steps - 1) step nothing is ever cut
    off, which is the same.

    Args:
        epsilon: largest change of a pixel, in [0, 1] pixel units.
        step: size of a step.
        steps: how many.
        first_step: size of the first one; None for that of the others.
        keep: see `Adversarial`.
        noisy_negatives: see `Adversarial`.
        noise: see `Adversarial`.

    Raises:
        GradbenchError: for a setting out of range.
    """

    family = "bim"

    def __init__(
        self,
        *,
        epsilon: float | str = 8 / 255,
        step: float | str = 2 / 255,
        steps: int = 10,
        first_step: float | str | None = None,
        keep: str = "all",
        noisy_negatives: bool = False,
        noise: float = 0.065,
    ):
        super().__init__(self.real("epsilon", epsilon), keep, noisy_negatives, noise)
        self.step = self.real("step", step, above=True)
        self.steps = self.whole("steps", steps)
        self.first_step = (
            self.step if first_step is None else self.real("first_step", first_step, above=True)
        )
        self.passes = self.steps

    def settings(self) -> Mapping[str, Any]:
        """Return the steps."""
        return {"step": self.step, "steps": self.steps, "first_step": self.first_step}

    def attack(self, clean: CleanBatch, strength: float, seed: int, network: Backbone) -> Tensor:
        """Return attacked grey levels."""
        steps = [255 * self.first_step] + [255 * self.step] * (self.steps - 1)
        return sign_steps(
            network, clean.grey, clean.grey, 255 * strength, steps, away_from(clean.labels)
        )
