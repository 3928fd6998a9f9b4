"""Projected gradient descent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.challenges.attacks.base import Adversarial
from gradbench.challenges.attacks.objectives import Objective, away_from, predict, slope
from gradbench.challenges.attacks.sign_steps import sign_steps
from gradbench.challenges.base import CleanBatch
from gradbench.challenges.counter import image_keys, normal, uniform
from gradbench.errors import unknown

NORMS = {"linf": 1.0, "l2": 1000.0}
"""Norms of the budget, and the largest that makes sense in [0, 1] pixels."""


class PGD(Adversarial):
    """Steps against the true label from a random start (Madry et al. 2018).

    linf: sign steps from a uniform start in the cube; l2: steps along the normalised gradient from
    a uniform start in the ball; each followed by projection onto budget and pixel range.

    With several restarts an image is kept from the first that f takes for another class, judged
    after rounding; images that succeed leave the later ones. One that never does is kept from the
    last.

    Differs from the paper: as FGSM.

    Args:
        norm: `linf` or `l2`.
        epsilon: budget in that norm, pixels in [0, 1].
        step: length of a step in that norm.
        steps: how many.
        restarts: random starts.
        random_start: begin at random, otherwise at the clean image.
        keep: see `Adversarial`.
        noisy_negatives: see `Adversarial`.
        noise: see `Adversarial`.

    Raises:
        GradbenchError: for a setting out of range.
    """

    family = "pgd"

    def __init__(
        self,
        *,
        norm: str = "linf",
        epsilon: float | str = 8 / 255,
        step: float | str = 2 / 255,
        steps: int = 20,
        restarts: int = 1,
        random_start: bool = True,
        keep: str = "all",
        noisy_negatives: bool = False,
        noise: float = 0.0625,
    ):
        if norm not in NORMS:
            raise unknown("norm of pgd", str(norm), NORMS)
        super().__init__(self.real("epsilon", epsilon, NORMS[norm]), keep, noisy_negatives, noise)
        self.norm, self.random_start = norm, bool(random_start)
        self.step = self.real("step", step, NORMS[norm], above=True)
        self.steps, self.restarts = self.whole("steps", steps), self.whole("restarts", restarts)
        self.passes = self.steps * self.restarts

    def settings(self) -> Mapping[str, Any]:
        """Return norm, steps, and how it starts."""
        names = ("norm", "step", "steps", "restarts", "random_start")
        return {name: getattr(self, name) for name in names}

    def attack(self, clean: CleanBatch, strength: float, seed: int, network: Backbone) -> Tensor:
        """Return attacked grey levels."""
        grey, labels = clean.grey, clean.labels
        keys = image_keys(seed, self.family, clean.sources).to(grey.device)
        found = torch.empty_like(grey)
        left = torch.arange(len(grey), device=grey.device)
        for restart in range(self.restarts):
            budget = 255 * strength
            own = grey[left]
            start = self._start(own, budget, keys[left], restart)
            found[left] = self._descend(network, own, start, budget, away_from(labels[left]))
            if restart + 1 < self.restarts:
                seen = clean.rounded(found)[left]
                left = left[predict(network, seen) == labels[left]]
                if not len(left):
                    break
        return found

    def _start(self, grey: Tensor, budget: float, keys: Tensor, restart: int) -> Tensor:
        if not self.random_start:
            return grey
        shape = grey.shape[1:]
        if self.norm == "linf":
            shift = uniform(keys, shape, 2 * restart).mul_(2 * budget).sub_(budget)
        else:
            direction = normal(keys, shape, 2 * restart)
            radius = uniform(keys, (1,), 2 * restart + 1) ** (1 / direction[0].numel())
            shift = _unit(direction) * (budget * radius[..., None, None])
        return (grey + shift).clamp_(0, 255)

    def _descend(
        self, network: Backbone, grey: Tensor, start: Tensor, budget: float, rising: Objective
    ) -> Tensor:
        step = 255 * self.step
        if self.norm == "linf":
            return sign_steps(network, grey, start, budget, [step] * self.steps, rising)
        now = start
        for _ in range(self.steps):
            moved = now + step * _unit(slope(network, now, rising)) - grey
            longest = moved.flatten(1).norm(dim=1).clamp_(min=1e-12)
            moved *= (budget / longest).clamp_(max=1)[:, None, None, None]
            now = (grey + moved).clamp_(0, 255)
        return now


def _unit(direction: Tensor) -> Tensor:
    """Return every image of a batch divided by its L2 norm; zero stays zero."""
    return direction / direction.flatten(1).norm(dim=1).clamp_(min=1e-30)[:, None, None, None]
