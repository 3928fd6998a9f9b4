"""The L2 attack of Carlini and Wagner."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.challenges.attacks.base import (
    Adversarial,
    fast_layout,
    logits_of,
    margin,
    pixel_gradient,
)
from gradbench.challenges.base import CleanBatch
from gradbench.errors import unknown

SPACES = ("pixels", "normalised")
GROWTH, LONGEST = 1.05, 3.0
"""On the grid the perturbation is stretched by this factor at a time, up to so much."""
CHECKS, FALLS = 10, 0.9999
"""With fixed c an image stops, at one of so many checks, where its loss is above this share of that
at the last check."""
NEARER, PATIENCE = 0.99, 2
"""With searched c it stops once so many c in a row brought it no nearer than this share."""
INSIDE = 0.999999
"""Pixels are drawn in by this factor before arctanh, which is infinite at black and white."""
BETAS, TINY = (0.9, 0.999), 1e-8


@dataclass(kw_only=True, eq=False)
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

    The space `pixels` is x' = (tanh(arctanh(2x - 1) + w) + 1) / 2, `normalised` is x' = x + std w
    cut to [0, 1]. With `early_stop` an image leaves that comes no nearer over two c in a row or,
    with fixed c, whose loss no longer falls from one tenth of the steps to the next.
    """

    constant: float | str = 0.01  # c to begin with
    binary_steps: int = 6  # values of c that are tried; 1 keeps it fixed
    steps: int = 20  # of Adam for each c
    rate: float | str = 0.01
    confidence: float | str = 0.0  # logits by which the other class must lead
    space: str = "pixels"
    early_stop: bool = True
    noise: float | str = 0.025

    family = "cw"
    version = 2
    budget = "constant"
    leaves_early = True

    most = Adversarial.most | {"constant": 1e10, "rate": 10, "confidence": 1e6}

    def __post_init__(self):
        if self.space not in SPACES:
            raise unknown("space of cw", str(self.space), SPACES)
        super().__post_init__()

    def attack(self, clean: CleanBatch, strength: float, seed: int, network: Backbone) -> Tensor:
        """Return attacked grey levels."""
        attacked = clean.grey.clone()
        right = torch.nonzero(logits_of(network, attacked).argmax(1) == clean.labels).squeeze(1)
        if not len(right) or not strength:
            return attacked
        near, distance = self._nearest(network, attacked[right], clean.labels[right], strength)
        attacked[right] = near
        if not clean.quantise:
            return attacked
        return _on_grid(network, clean, attacked, right[distance.isfinite()])

    def _nearest(
        self, network: Backbone, grey: Tensor, labels: Tensor, constant: float
    ) -> tuple[Tensor, Tensor]:
        """Return the nearest images that f errs on and their squared distances, (B,).

        Clean images, which f classifies correctly, and infinite distances where nothing is found.
        """
        # refuses a network without a graph, for which the descent would find nothing
        pixel_gradient(network, grey[:1], lambda logits: logits.sum(1))
        # a step of one in w, in pixels; None with the change of variable
        unit = network.std if self.space == "normalised" else None
        state = _State.begin(grey, labels, constant, unit)
        best, distance = grey.clone(), torch.full_like(state.c, torch.inf)
        searched = self.binary_steps > 1
        period = self.steps if searched else math.ceil(self.steps / CHECKS)
        for step in range(1, self.binary_steps * self.steps + 1):
            w = state.w.requires_grad_()
            with torch.enable_grad():
                images = _images(state.origin, w, unit)
                change = (images - state.clean) / (1 if unit is None else unit)
                far = change.square().flatten(1).sum(1)
                lead = margin(network(images), state.labels)
                loss = far + state.c * (lead + self.confidence).clamp(min=0)
                (gradient,) = torch.autograd.grad(loss.sum(), w)
            far, lead, loss = far.detach(), lead.detach(), loss.detach()
            errs = (lead < 0) & (lead <= -self.confidence)
            nearer = errs & (far < distance[state.rows])
            best[state.rows[nearer]] = 255 * images.detach()[nearer]
            distance[state.rows[nearer]] = far[nearer]
            state.w = w.detach()
            state.adam_step(gradient, self.rate, step)
            if (step - 1) % period >= period // 2:
                state.worked |= errs
            if step % period:
                continue
            goes_on = state.goes_on(distance[state.rows] if searched else loss, searched)
            if searched:
                state.next_constant()
            if self.early_stop and not goes_on.all():
                state.keep(goes_on)
                if not len(state.rows):
                    break
        return best, distance


@dataclass
class _State:
    """The state of the descent, one row for each image that has not left."""

    rows: Tensor  # of the images in the batch
    labels: Tensor
    origin: Tensor  # w = 0 in the space of w
    clean: Tensor  # images in [0, 1] that w = 0 stands for
    w: Tensor  # the variable of the descent
    first: Tensor  # moments of Adam
    second: Tensor
    c: Tensor  # tried now
    low: Tensor  # the largest c that failed
    high: Tensor  # the smallest c that worked
    worked: Tensor  # c made f err in the second half of its steps
    before: Tensor  # distance or loss at the last check
    idle: Tensor  # checks in a row that brought the image no nearer

    @classmethod
    def begin(cls, grey: Tensor, labels: Tensor, constant: float, unit: Tensor | None) -> _State:
        """Return the state before the first step."""
        origin = clean = pixels = fast_layout(grey / 255)
        if unit is None:
            origin = (pixels.mul(2).sub(1) * INSIDE).atanh()
            clean = _images(origin, torch.zeros_like(origin), None)
        c = torch.full((len(grey),), constant, device=grey.device)
        return cls(
            rows=torch.arange(len(grey), device=grey.device),
            labels=labels,
            origin=origin,
            clean=clean,
            w=torch.zeros_like(pixels),
            first=torch.zeros_like(pixels),
            second=torch.zeros_like(pixels),
            c=c,
            low=torch.zeros_like(c),
            high=torch.full_like(c, torch.inf),
            worked=torch.zeros_like(labels, dtype=torch.bool),
            before=torch.full_like(c, torch.inf),
            idle=torch.zeros_like(labels),
        )

    def keep(self, goes_on: Tensor) -> None:
        """Let the other images leave."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[goes_on])

    def adam_step(self, gradient: Tensor, rate: float, step: int) -> None:
        """Take a step of Adam (Kingma and Ba 2015, algorithm 1)."""
        self.first.lerp_(gradient, 1 - BETAS[0])
        self.second.lerp_(gradient.square(), 1 - BETAS[1])
        correction = math.sqrt(1 - BETAS[1] ** step)
        size = rate * correction / (1 - BETAS[0] ** step)
        self.w.addcdiv_(self.first, self.second.sqrt().add_(TINY * correction), value=-size)

    def goes_on(self, now: Tensor, searched: bool) -> Tensor:
        """Return a mask of the images to go on with, by distance or, with fixed c, by loss."""
        if searched:
            closer = (now < NEARER * self.before) | now.isinf()
            self.idle = torch.where(closer, 0, self.idle + 1)
            goes_on = self.idle < PATIENCE
        else:
            goes_on = now <= FALLS * self.before
        self.before = now
        return goes_on

    def next_constant(self) -> None:
        """Go halfway between the largest c that failed and the smallest that worked."""
        self.low = torch.where(self.worked, self.low, self.c)
        self.high = torch.where(self.worked, self.c, self.high)
        halfway = (self.low + self.high) / 2
        self.c = torch.where(self.high.isfinite(), halfway, 10 * self.c)
        self.worked.fill_(False)


def _images(origin: Tensor, w: Tensor, unit: Tensor | None) -> Tensor:
    """Return the images in [0, 1] that w stands for."""
    if unit is None:
        return (origin + w).tanh().add(1).div(2)
    return (origin + unit * w).clamp(0, 1)


def _on_grid(network: Backbone, clean: CleanBatch, attacked: Tensor, left: Tensor) -> Tensor:
    """Return images of whole grey levels that f errs on, and clean ones in all rows but `left`."""
    whole, stretch = clean.grey.clone(), 1.0
    while len(left) and stretch <= LONGEST:
        change = stretch * (attacked[left] - clean.grey[left])
        tried = (clean.grey[left] + change).round_().clamp_(0, 255)
        errs = logits_of(network, tried).argmax(1) != clean.labels[left]
        whole[left[errs]] = tried[errs]
        left, stretch = left[~errs], stretch * GROWTH
    return whole
