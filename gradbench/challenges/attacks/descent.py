"""Adam on the perturbations of many images at once, each of which may stop when it will."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.challenges.attacks.objectives import laid_out, margin

SPACES = ("pixels", "normalised")
CHECKS = 10
"""How often in a descent an image may stop."""
FALLS = 0.9999
"""An image stops when its loss is above this share of what it was at the last check."""
INSIDE = 0.999999
"""Pixels are drawn in by this factor before arctanh, which is infinite at black and white."""
BETA = (0.9, 0.999)
TINY = 1e-8


class Descent:
    """Minimises squared distance plus c times the lead of the true class.

    Args:
        network: f.
        grey: (B, C, H, W) clean grey levels.
        space: `pixels` (variable w with x' = (tanh w + 1) / 2) or `normalised` (x' = x + std w).
        rate: learning rate of Adam (Kingma and Ba 2015).
    """

    def __init__(self, network: Backbone, grey: Tensor, space: str, rate: float):
        self.network, self.rate = network, rate
        self.tanh = space == "pixels"
        pixels = laid_out(grey / 255)
        self.unit = torch.ones_like(network.std) if self.tanh else network.std
        self.origin = (pixels.mul(2).sub(1) * INSIDE).atanh() if self.tanh else pixels
        self.w = torch.zeros_like(pixels)
        self.reference = self.pixels(self.origin, self.w)

    def pixels(self, origin: Tensor, w: Tensor) -> Tensor:
        """Return the images that w stands for, in [0, 1]."""
        if self.tanh:
            return (origin + w).tanh().add(1).div(2)
        return (origin + self.unit * w).clamp(0, 1)

    def run(
        self, labels: Tensor, c: Tensor, confidence: float, steps: int, early_stop: bool
    ) -> tuple[Tensor, Tensor]:
        """Descend from the clean images.

        Args:
            labels: (B,) true labels.
            c: (B,) weight of the lead in the loss.
            confidence: logits by which another class must lead.
            steps: at most.
            early_stop: let an image stop when its loss no longer falls.

        Returns:
            (B, C, H, W) grey levels of the nearest images that f errs on, and (B,) their squared
            distances in [0, 1] pixels, infinite where there is none.
        """
        best = self.reference.clone()
        distance = torch.full((len(best),), torch.inf, device=best.device)
        rows = torch.arange(len(best), device=best.device)
        origin, reference, w = self.origin, self.reference, self.w.clone()
        first, second = torch.zeros_like(w), torch.zeros_like(w)
        before = torch.full_like(c, torch.inf)
        every = math.ceil(steps / CHECKS)
        for step in range(1, steps + 1):
            with torch.enable_grad():
                w.requires_grad_()
                images = self.pixels(origin, w)
                change = (images - reference) / self.unit
                far = change.square().flatten(1).sum(1)
                lead = margin(self.network(images), labels)
                loss = far + c * (lead + confidence).clamp(min=0)
                (slope,) = torch.autograd.grad(loss.sum(), w)
            w = w.detach()
            far, lead, loss, images = far.detach(), lead.detach(), loss.detach(), images.detach()
            nearer = (lead < 0) & (lead <= -confidence) & (far < distance[rows])
            best[rows[nearer]], distance[rows[nearer]] = images[nearer], far[nearer]
            first.lerp_(slope, 1 - BETA[0])
            second.lerp_(slope.square(), 1 - BETA[1])
            scale = self.rate * math.sqrt(1 - BETA[1] ** step) / (1 - BETA[0] ** step)
            w -= scale * first / (second.sqrt() + TINY * math.sqrt(1 - BETA[1] ** step))
            if early_stop and step % every == 0:
                on = loss <= FALLS * before
                before = loss
                if not on.all():
                    state = (rows, origin, reference, w, first, second, before, labels, c)
                    (rows, origin, reference, w, first, second, before, labels, c) = (
                        part[on] for part in state
                    )
                    if not len(rows):
                        break
        return 255 * best, distance
