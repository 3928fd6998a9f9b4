"""The L2 attack of Carlini and Wagner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.challenges.attacks.base import Adversarial
from gradbench.challenges.attacks.descent import SPACES, Descent
from gradbench.challenges.attacks.objectives import predict
from gradbench.challenges.base import Clean
from gradbench.errors import unknown

GROWTH = 1.05
LONGEST = 3.0


class CW(Adversarial):
    """The smallest change in L2 that makes f err (Carlini and Wagner 2017, section VI.A).

    Minimises ||x' - x||^2 + c max(z_y - max_{j != y} z_j, -confidence) with Adam. For each image c
    is searched: ten times larger until f errs, from then on halfway between the largest that
    failed and the smallest that worked. Images that f errs on already, and those for which nothing
    is found, stay as they are.

    Every image stops when its own loss no longer falls, and leaves the batch. So the last bits of
    an image depend on the others in its batch, which `produce` keeps fixed.

    On the grid the perturbation is stretched, in steps of 5 % up to threefold, until f errs on the
    image rounded to the nearest grey levels.

    Differs from the paper: the loss is watched image by image, and the search on the grid is along
    a line instead of pixel by pixel. With space=normalised, as in the code of Lee et al. (2018),
    distances are taken after division by the standard deviation of each channel, without change of
    variable; there, one other class is fixed beforehand and the iterate is kept by the loss of the
    whole batch, which is not mirrored here.

    Args:
        constant: c to begin with.
        binary_steps: values of c that are tried; 1 keeps it fixed.
        steps: of Adam for each c, at most.
        rate: learning rate.
        confidence: logits by which the other class must lead.
        space: `pixels`, with the change of variable x' = (tanh w + 1) / 2, or `normalised`.
        early_stop: let an image stop when its loss no longer falls.
        keep: see `Adversarial`.
        noisy_negatives: see `Adversarial`.
        noise: see `Adversarial`.

    Raises:
        GradbenchError: for a setting out of range.
    """

    family = "cw"

    def __init__(
        self,
        *,
        constant: float | str = 0.01,
        binary_steps: int = 6,
        steps: int = 100,
        rate: float | str = 0.01,
        confidence: float | str = 0.0,
        space: str = "pixels",
        early_stop: bool = True,
        keep: str = "all",
        noisy_negatives: bool = False,
        noise: float = 0.025,
    ):
        super().__init__(self.real("constant", constant, 1e10), keep, noisy_negatives, noise)
        if space not in SPACES:
            raise unknown("space of cw", str(space), SPACES)
        self.binary_steps = self.whole("binary_steps", binary_steps)
        self.steps = self.whole("steps", steps)
        self.rate = self.real("rate", rate, 10, above=True)
        self.confidence = self.real("confidence", confidence, 1e6)
        self.space, self.early_stop = space, bool(early_stop)
        self.passes = self.binary_steps * self.steps

    def settings(self) -> Mapping[str, Any]:
        """Return how c is searched, and how the descent goes."""
        names = ("binary_steps", "steps", "rate", "confidence", "space", "early_stop")
        return {name: getattr(self, name) for name in names}

    def attack(self, clean: Clean, strength: float, seed: int, network: Backbone) -> Tensor:
        """Return attacked grey levels."""
        best, distance = self.search(clean.grey, clean.labels, strength, network)
        if not clean.quantise:
            return best
        return _on_grid(network, clean, best, distance.isfinite())

    def search(
        self, grey: Tensor, labels: Tensor, constant: float, network: Backbone
    ) -> tuple[Tensor, Tensor]:
        """Return the nearest images found, (B, C, H, W) grey levels, and their squared distances.

        A distance is infinite where nothing was found, and where f erred already.
        """
        best, distance = grey.clone(), torch.full((len(grey),), torch.inf, device=grey.device)
        left = torch.nonzero(predict(network, grey) == labels).squeeze(1)
        if not len(left) or not constant:
            return best, distance
        c = torch.full((len(left),), constant, device=grey.device)
        low, high = torch.zeros_like(c), torch.full_like(c, torch.inf)
        for _ in range(self.binary_steps):
            descent = Descent(network, grey[left], self.space, self.rate)
            found, near = descent.run(labels[left], c, self.confidence, self.steps, self.early_stop)
            nearer = near < distance[left]
            best[left[nearer]], distance[left[nearer]] = found[nearer], near[nearer]
            worked = near.isfinite()
            low, high = torch.where(worked, low, c), torch.where(worked, c, high)
            c = torch.where(high.isfinite(), (low + high) / 2, 10 * c)
        return best, distance


def _on_grid(network: Backbone, clean: Clean, attacked: Tensor, found: Tensor) -> Tensor:
    """Return images of whole grey levels that f errs on where it did before, others clean."""
    whole = clean.grey.clone()
    left, stretch = torch.nonzero(found).squeeze(1), 1.0
    while len(left) and stretch <= LONGEST:
        change = stretch * (attacked[left] - clean.grey[left])
        tried = (clean.grey[left] + change).round_().clamp_(0, 255)
        errs = predict(network, tried) != clean.labels[left]
        whole[left[errs]] = tried[errs]
        left, stretch = left[~errs], stretch * GROWTH
    return whole
