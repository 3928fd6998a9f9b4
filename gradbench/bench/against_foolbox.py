"""The attacks of gradbench and of foolbox with the same budgets, ready to be timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.bench.contenders import Unavailable
from gradbench.challenges.attacks.base import Adversarial
from gradbench.challenges.attacks.cw import CW
from gradbench.challenges.attacks.projected import BIM, FGSM, PGD, IterLL
from gradbench.challenges.base import CleanBatch

EPSILON, STEP = 8 / 255, 2 / 255
ATTACKS = {
    "fgsm": "L∞ 8/255",
    "bim": "L∞ 8/255, 10 steps of 2/255",
    "pgd": "L∞ 8/255, 20 steps of 2/255, random start",
    "pgd_l2": "L2 0.5, 20 steps of 0.1, random start",
    "iterll": "L∞ 8/255, 10 steps of 1/255",
    "cw_fixed": "c = 1, 50 steps, no early stop",
    "cw": "gradbench: 6 c of 20 steps; foolbox: 9 c of up to 100 steps; both stop early",
}
"""What is compared, and with which settings."""


@dataclass(frozen=True)
class Pair:
    """One attack, ours and theirs; both return pixels in [0, 1], not rounded to the grid."""

    name: str
    own: Callable[[], Tensor]
    other: Callable[[], Tensor]


def pair(name: str, f: Backbone, clean: CleanBatch) -> Pair:
    """Return an attack on clean images, ours and theirs.

    The parameters of f are frozen for both, so that no gradients of them are computed; foolbox's
    attacks are run without its own look at the result.

    Args:
        name: of `ATTACKS`.
        f: in evaluation mode, without gradients of its parameters.
        clean: images and labels, not to be rounded.

    Raises:
        Unavailable: without foolbox.
    """
    try:
        import foolbox
    except ImportError:
        raise Unavailable("foolbox is not installed (extra bench)") from None
    model = foolbox.PyTorchModel(f, bounds=(0, 1), device=clean.grey.device)
    pixels, labels = clean.grey / 255, clean.labels
    linf = foolbox.attacks.LinfBasicIterativeAttack
    carlini = foolbox.attacks.L2CarliniWagnerAttack
    ours: dict[str, Adversarial] = {
        "fgsm": FGSM(epsilon=EPSILON),
        "bim": BIM(epsilon=EPSILON, step=STEP, steps=10),
        "pgd": PGD(epsilon=EPSILON, step=STEP, steps=20),
        "pgd_l2": PGD(norm="l2", epsilon=0.5, step=0.1, steps=20),
        "iterll": IterLL(epsilon=EPSILON, step=STEP / 2, steps=10),
        "cw_fixed": CW(constant=1.0, binary_steps=1, steps=50, early_stop=False),
        "cw": CW(constant=0.01),
    }
    theirs = {
        "fgsm": foolbox.attacks.LinfFastGradientAttack(),
        "bim": linf(abs_stepsize=STEP, steps=10, random_start=False),
        "pgd": foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=20),
        "pgd_l2": foolbox.attacks.L2PGD(abs_stepsize=0.1, steps=20),
        "iterll": linf(abs_stepsize=STEP / 2, steps=10, random_start=False),
        "cw_fixed": carlini(1, 50, 0.01, initial_const=1.0, abort_early=False),
        "cw": carlini(9, 100, 0.01, initial_const=0.01),
    }
    own, other = ours[name], theirs[name]
    budget = {} if name.startswith("cw") else {"epsilon": own.strength_at(None)}

    def run_other() -> Tensor:
        criterion = foolbox.criteria.Misclassification(labels)
        if name == "iterll":
            with torch.no_grad():
                least = f(pixels).argmin(1)
            criterion = foolbox.criteria.TargetedMisclassification(least)
        return other.run(model, pixels, criterion, **budget).detach()

    return Pair(name, lambda: own.perturb(clean, own.strength_at(None), 0, f) / 255, run_other)


@dataclass(frozen=True)
class Effect:
    """What an attack did to images that f classified correctly.

    Attributes:
        success: share that f is mistaken about afterwards.
        l2: mean L2 norm of the perturbation over those, pixels in [0, 1]; None without success.
        succeeded: (B,) bool.
    """

    success: float
    l2: float | None
    succeeded: Tensor


def effect(f: Backbone, clean: CleanBatch, attacked: Tensor) -> Effect:
    """Return what attacked pixels in [0, 1] do."""
    pixels = clean.grey / 255
    with torch.no_grad():
        right = f(pixels).argmax(1) == clean.labels
        succeeded = right & (f(attacked).argmax(1) != clean.labels)
    length = (attacked - pixels).flatten(1).norm(dim=1)[succeeded]
    share = float(succeeded.sum() / right.sum().clamp(min=1))
    return Effect(share, float(length.mean()) if len(length) else None, succeeded)
