"""The L2 attack of Carlini and Wagner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.challenges.attacks.base import Adversarial
from gradbench.challenges.attacks.descent import SPACES, Plan, nearest
from gradbench.challenges.attacks.objectives import predict
from gradbench.challenges.base import CleanBatch
from gradbench.errors import unknown

GROWTH = 1.05
LONGEST = 3.0


class CW(Adversarial):
    """The smallest change in L2 that makes f err (Carlini and Wagner 2017, section VI.A).

    Minimises ||x' - x||^2 + c max(z_y - max_{j != y} z_j, -confidence) with Adam. For each image c
    is searched: ten times larger until f errs, from then on halfway between the largest that
    failed and the smallest that worked. Of all iterates that f errs on, the nearest is kept. Images
    that f errs on already, and those for which nothing is found, stay as they are.

    An image that comes no nearer leaves the batch. So its last bits may depend on the others in its
    batch, which `produce` keeps fixed.

    On the grid the perturbation is stretched, in steps of 5 % up to threefold, until f errs on the
    image rounded to the nearest grey levels.

    Differs from the paper: the descent goes on from one c to the next instead of beginning anew at
    the clean image, and a c works if f errs in the second half of its steps, so that far
    fewer steps do for each c; whether to stop is asked of every image, not of the batch; the search
    on the grid is along a line instead of pixel by pixel. With space=normalised, as in the code of
    Lee et al. (2018), distances are taken after division by the standard deviation of each channel,
    without change of variable; that code also fixes one other class beforehand and keeps the
    iterate of the lowest loss of the whole batch, which is not mirrored here.

    Args:
        constant: c to begin with.
        binary_steps: values of c that are tried; 1 keeps it fixed.
        steps: of Adam for each c.
        rate: learning rate.
        confidence: logits by which the other class must lead.
        space: `pixels`, with the change of variable x' = (tanh w + 1) / 2, or `normalised`.
        early_stop: let an image leave that comes no nearer over two c in a row or, with fixed c,
            whose loss no longer falls from one tenth of the steps to the next.
        keep: see `Adversarial`.
        noisy_negatives: see `Adversarial`.
        noise: see `Adversarial`.

    Raises:
        GradbenchError: for a setting out of range.
    """

    family = "cw"
    version = 2
    leaves_early = True

    def __init__(
        self,
        *,
        constant: float | str = 0.01,
        binary_steps: int = 6,
        steps: int = 20,
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
        names = ("space", "binary_steps", "steps", "rate", "confidence", "early_stop")
        return {name: getattr(self, name) for name in names}

    def attack(self, clean: CleanBatch, strength: float, seed: int, network: Backbone) -> Tensor:
        """Return attacked grey levels."""
        found = clean.grey.clone()
        right = torch.nonzero(predict(network, found) == clean.labels).squeeze(1)
        if not len(right) or not strength:
            return found
        plan = Plan(**self.settings())
        near, distance = nearest(network, found[right], clean.labels[right], strength, plan)
        found[right] = near
        if not clean.quantise:
            return found
        return _on_grid(network, clean, found, right[distance.isfinite()])


def _on_grid(network: Backbone, clean: CleanBatch, attacked: Tensor, left: Tensor) -> Tensor:
    """Return images of whole grey levels that f errs on, and clean ones in all rows but `left`."""
    whole, stretch = clean.grey.clone(), 1.0
    while len(left) and stretch <= LONGEST:
        change = stretch * (attacked[left] - clean.grey[left])
        tried = (clean.grey[left] + change).round_().clamp_(0, 255)
        errs = predict(network, tried) != clean.labels[left]
        whole[left[errs]] = tried[errs]
        left, stretch = left[~errs], stretch * GROWTH
    return whole
