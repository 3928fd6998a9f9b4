"""Attacks that follow the gradient and are projected back into a budget: FGSM, BIM, IterLL, PGD."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.challenges.attacks.base import (
    Adversarial,
    AttackObjective,
    away_from,
    logits_of,
    pixel_gradient,
    towards,
)
from gradbench.challenges.base import CleanBatch
from gradbench.challenges.counter import image_keys, normal, uniform
from gradbench.errors import unknown

NORMS = {"linf": 1.0, "l2": 1000.0}
"""Norms of PGD's budget, and the largest that makes sense in [0, 1] pixels."""


def sign_steps(
    network: Backbone,
    clean: Tensor,
    start: Tensor,
    budget: float,
    steps: Iterable[float],
    objective: AttackObjective,
) -> Tensor:
    """Step along the sign of the gradient, and back into the budget and the range of pixels.

    x <- clip(x + step sign(dJ/dx)), sign(0) = +1 as in the code of Lee et al. (2018); J is the
    objective, which is to rise. Images are (B, C, H, W) grey levels, and so are the budget, the
    largest change of a pixel, and the lengths of the steps.
    """
    low, high = (clean - budget).clamp_(min=0), (clean + budget).clamp_(max=255)
    grey = start
    for step in steps:
        up = pixel_gradient(network, grey, objective) >= 0
        grey = torch.where(up, grey + step, grey - step).clamp_(low, high)
    return grey


@dataclass(kw_only=True, eq=False)
class FGSM(Adversarial):
    """One step of size epsilon against the true label (Goodfellow, Shlens and Szegedy 2015).

    x' = clip(x + epsilon sign(dJ/dx)), J the cross entropy.

    Differs from the paper: sign(0) = +1, as in the code of Lee et al. (2018); the gradient is taken
    of the log-odds, see `log_odds`; pixels are rounded to the grid towards the clean
    image, so the perturbation never exceeds epsilon.
    """

    epsilon: float | str = 0.05  # largest change of a pixel, pixels in [0, 1]

    family = "fgsm"

    def attack(self, clean: CleanBatch, strength: float, seed: int, network: Backbone) -> Tensor:
        """Return attacked grey levels."""
        size = 255 * strength
        return sign_steps(network, clean.grey, clean.grey, size, [size], away_from(clean.labels))


@dataclass(kw_only=True, eq=False)
class BIM(Adversarial):
    """Small steps against the true label, within epsilon (Kurakin, Goodfellow and Bengio 2017).

    x <- clip(x + step sign(dJ/dx)) to within epsilon of the clean image, from the clean image on.

    Differs from the paper: as FGSM, and the first step may have a size of its own. The code of Lee
    et al. (2018) has no budget; with epsilon = first_step + (steps - 1) step nothing is ever cut
    off, which is the same.
    """

    epsilon: float | str = 8 / 255  # largest change of a pixel, pixels in [0, 1]
    step: float | str = 2 / 255
    steps: int = 10
    first_step: float | str | None = None  # None for `step`
    noise: float | str = 0.065

    family = "bim"

    def __post_init__(self):
        super().__post_init__()
        self.first_step = self.step if self.first_step is None else self.first_step
        self._check_real("first_step")

    def attack(self, clean: CleanBatch, strength: float, seed: int, network: Backbone) -> Tensor:
        """Return attacked grey levels."""
        steps = [255 * self.first_step] + [255 * self.step] * (self.steps - 1)
        rising = away_from(clean.labels)
        return sign_steps(network, clean.grey, clean.grey, 255 * strength, steps, rising)


@dataclass(kw_only=True, eq=False)
class IterLL(Adversarial):
    """Small steps towards the least likely class of the clean image (Kurakin et al. 2017).

    x <- clip(x - step sign(dJ/dx)) to within epsilon, J the cross entropy of the class that f
    gives the lowest logit to on the clean image. Success is any wrong class, as everywhere.

    Differs from the paper: as FGSM.
    """

    epsilon: float | str = 8 / 255  # largest change of a pixel, pixels in [0, 1]
    step: float | str = 1 / 255
    steps: int = 10  # the paper takes min(epsilon + 4, 1.25 epsilon) in grey levels

    family = "iterll"

    @property
    def passes(self) -> float:
        """One for each step, and half a one to find the class."""
        return self.steps + 0.5

    def attack(self, clean: CleanBatch, strength: float, seed: int, network: Backbone) -> Tensor:
        """Return attacked grey levels."""
        rising = towards(logits_of(network, clean.grey).argmin(1))
        steps = [255 * self.step] * self.steps
        return sign_steps(network, clean.grey, clean.grey, 255 * strength, steps, rising)


@dataclass(kw_only=True, eq=False)
class PGD(Adversarial):
    """Steps against the true label from a random start (Madry et al. 2018).

    linf: sign steps from a uniform start in the cube; l2: steps along the normalised gradient from
    a uniform start in the ball; each followed by projection onto budget and pixel range.

    With several restarts an image is kept from the first that f takes for another class, judged
    after rounding; images that succeed leave the later ones. One that never does is kept from the
    last.

    Differs from the paper: as FGSM.
    """

    norm: str = "linf"  # or `l2`
    epsilon: float | str = 8 / 255  # budget in that norm, pixels in [0, 1]
    step: float | str = 2 / 255  # length in that norm
    steps: int = 20
    restarts: int = 1
    random_start: bool = True  # otherwise at the clean image

    family = "pgd"

    def __post_init__(self):
        if self.norm not in NORMS:
            raise unknown("norm of pgd", str(self.norm), NORMS)
        # distances in L2 grow with the number of pixels
        self.most = {**self.most, "epsilon": NORMS[self.norm], "step": NORMS[self.norm]}
        super().__post_init__()

    def attack(self, clean: CleanBatch, strength: float, seed: int, network: Backbone) -> Tensor:
        """Return attacked grey levels."""
        grey, labels, budget = clean.grey, clean.labels, 255 * strength
        keys = image_keys(seed, self.family, clean.sources).to(grey.device)
        attacked = torch.empty_like(grey)
        left = torch.arange(len(grey), device=grey.device)
        for restart in range(self.restarts):
            start = self._start(grey[left], budget, keys[left], restart)
            rising = away_from(labels[left])
            attacked[left] = self._descend(network, grey[left], start, budget, rising)
            if restart + 1 < self.restarts:
                rounded = clean.rounded(attacked)[left]
                left = left[logits_of(network, rounded).argmax(1) == labels[left]]
                if not len(left):
                    break
        return attacked

    def _start(self, grey: Tensor, budget: float, keys: Tensor, restart: int) -> Tensor:
        if not self.random_start:
            return grey
        shape = grey.shape[1:]
        if self.norm == "linf":
            shift = uniform(keys, shape, 2 * restart).mul_(2 * budget).sub_(budget)
        else:
            direction = normal(keys, shape, 2 * restart)
            radius = uniform(keys, (1,), 2 * restart + 1) ** (1 / direction[0].numel())
            shift = _of_length_one(direction) * (budget * radius[..., None, None])
        return (grey + shift).clamp_(0, 255)

    def _descend(
        self, network: Backbone, grey: Tensor, start: Tensor, budget: float, rising: AttackObjective
    ) -> Tensor:
        step = 255 * self.step
        if self.norm == "linf":
            return sign_steps(network, grey, start, budget, [step] * self.steps, rising)
        now = start
        for _ in range(self.steps):
            change = now + step * _of_length_one(pixel_gradient(network, now, rising)) - grey
            length = change.flatten(1).norm(dim=1).clamp_(min=1e-12)
            change *= (budget / length).clamp_(max=1)[:, None, None, None]
            now = (grey + change).clamp_(0, 255)
        return now


def _of_length_one(direction: Tensor) -> Tensor:
    """Return every image of a batch divided by its L2 norm; zero stays zero."""
    return direction / direction.flatten(1).norm(dim=1).clamp_(min=1e-30)[:, None, None, None]
