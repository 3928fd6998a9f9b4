"""The descent of Carlini and Wagner for a batch of images, each with a constant c of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.challenges.attacks.objectives import laid_out, margin, slope

SPACES = ("pixels", "normalised")
CHECKS = 10
"""How often in a descent with fixed c an image may stop."""
FALLS = 0.9999
"""With fixed c it stops where its loss is above this share of that at the last check."""
NEARER, PATIENCE = 0.99, 2
"""With searched c it stops once so many c in a row brought it no nearer than this share."""
INSIDE = 0.999999
"""Pixels are drawn in by this factor before arctanh, which is infinite at black and white."""
BETAS, TINY = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class Plan:
    """How to descend.

    Attributes:
        space: `pixels`, x' = (tanh(arctanh(2x - 1) + w) + 1) / 2, or `normalised`, x' = x + std w
            cut to [0, 1].
        binary_steps: values of c.
        steps: of Adam for each c.
        rate: learning rate.
        confidence: logits by which another class must lead.
        early_stop: let an image stop before all steps are taken.
    """

    space: str
    binary_steps: int
    steps: int
    rate: float
    confidence: float
    early_stop: bool


@dataclass
class _Going:
    """Images that are still going, one row each; see `nearest`."""

    rows: Tensor
    labels: Tensor
    origin: Tensor
    clean: Tensor
    w: Tensor
    first: Tensor
    second: Tensor
    c: Tensor
    low: Tensor
    high: Tensor
    worked: Tensor
    before: Tensor
    idle: Tensor

    def keep(self, on: Tensor) -> None:
        """Let the other images leave."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[on])


def nearest(
    network: Backbone, grey: Tensor, labels: Tensor, constant: float, plan: Plan
) -> tuple[Tensor, Tensor]:
    """Return the nearest images that f errs on and their squared distances.

    Args:
        network: f.
        grey: (B, C, H, W) clean grey levels, which f classifies correctly.
        labels: (B,) their labels.
        constant: c to begin with.
        plan: how to descend.

    Returns:
        (B, C, H, W) grey levels and (B,) distances in the space of the plan; clean images and
        infinite distances where nothing was found.
    """
    slope(network, grey[:1], lambda logits: logits.sum(1))  # or the descent would find nothing
    going = _begin(grey, labels, constant, plan)
    unit = _unit(network, plan)
    best, distance = grey.clone(), torch.full_like(going.c, torch.inf)
    searched = plan.binary_steps > 1
    period = plan.steps if searched else math.ceil(plan.steps / CHECKS)
    for step in range(1, plan.binary_steps * plan.steps + 1):
        w = going.w.requires_grad_()
        with torch.enable_grad():
            images = _images(going.origin, w, unit)
            far = (
                ((images - going.clean) / (1 if unit is None else unit)).square().flatten(1).sum(1)
            )
            lead = margin(network(images), going.labels)
            loss = far + going.c * (lead + plan.confidence).clamp(min=0)
            (gradient,) = torch.autograd.grad(loss.sum(), w)
        far, lead, loss = far.detach(), lead.detach(), loss.detach()
        errs = (lead < 0) & (lead <= -plan.confidence)
        nearer = errs & (far < distance[going.rows])
        best[going.rows[nearer]] = 255 * images.detach()[nearer]
        distance[going.rows[nearer]] = far[nearer]
        going.w = w.detach()
        _adam(going, gradient, plan.rate, step)
        if (step - 1) % period >= period // 2:
            going.worked |= errs
        if step % period:
            continue
        now = distance[going.rows] if searched else loss
        on = _goes_on(going, now, searched) if plan.early_stop else None
        if searched:
            _next_constant(going)
        if on is not None and not on.all():
            going.keep(on)
            if not len(going.rows):
                break
    return best, distance


def _begin(grey: Tensor, labels: Tensor, constant: float, plan: Plan) -> _Going:
    pixels = laid_out(grey / 255)
    origin, clean = pixels, pixels
    if plan.space == "pixels":
        origin = (pixels.mul(2).sub(1) * INSIDE).atanh()
        clean = _images(origin, torch.zeros_like(origin), None)
    count = len(grey)
    c = torch.full((count,), constant, device=grey.device)
    return _Going(
        rows=torch.arange(count, device=grey.device),
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


def _unit(network: Backbone, plan: Plan) -> Tensor | None:
    """Return what a step of one in w is in pixels; None where there is a change of variable."""
    return network.std if plan.space == "normalised" else None


def _images(origin: Tensor, w: Tensor, unit: Tensor | None) -> Tensor:
    """Return the images in [0, 1] that w stands for."""
    if unit is None:
        return (origin + w).tanh().add(1).div(2)
    return (origin + unit * w).clamp(0, 1)


def _adam(going: _Going, slope: Tensor, rate: float, step: int) -> None:
    """Take a step of Adam (Kingma and Ba 2015, algorithm 1)."""
    going.first.lerp_(slope, 1 - BETAS[0])
    going.second.lerp_(slope.square(), 1 - BETAS[1])
    correction = math.sqrt(1 - BETAS[1] ** step)
    size = rate * correction / (1 - BETAS[0] ** step)
    going.w.addcdiv_(going.first, going.second.sqrt().add_(TINY * correction), value=-size)


def _goes_on(going: _Going, now: Tensor, searched: bool) -> Tensor:
    """Return which images are not done: with fixed c by their loss, otherwise by their distance."""
    if searched:
        closer = (now < NEARER * going.before) | now.isinf()
        going.idle = torch.where(closer, 0, going.idle + 1)
        on = going.idle < PATIENCE
    else:
        on = now <= FALLS * going.before
    going.before = now
    return on


def _next_constant(going: _Going) -> None:
    """Go halfway between the largest c that failed and the smallest that worked."""
    going.low = torch.where(going.worked, going.low, going.c)
    going.high = torch.where(going.worked, going.c, going.high)
    halfway = (going.low + going.high) / 2
    going.c = torch.where(going.high.isfinite(), halfway, 10 * going.c)
    going.worked.fill_(False)
