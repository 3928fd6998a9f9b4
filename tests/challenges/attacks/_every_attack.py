"""Every attack with settings for small images, and a network that sees colours."""

from dataclasses import replace

import numpy as np
import torch
from _trained import digits, trained

from gradbench.backbones.backbone import Backbone, digest
from gradbench.challenges.attacks.base import Adversarial
from gradbench.challenges.attacks.cw import CW
from gradbench.challenges.attacks.projected import BIM, FGSM, PGD, IterLL
from gradbench.challenges.attacks.semantic import Semantic
from gradbench.challenges.produce import ChallengeSetup
from gradbench.data.imageset import ImageSet

BUDGET = 0.1
LINF = {
    "fgsm": FGSM(epsilon=BUDGET),
    "bim": BIM(epsilon=BUDGET, step=0.03, steps=6),
    "bim_first_step": BIM(epsilon=0.052, step=0.01, steps=6, first_step=0.002),
    "pgd": PGD(epsilon=BUDGET, step=0.03, steps=6),
    "pgd_restarts": PGD(epsilon=BUDGET, step=0.03, steps=4, restarts=3),
    "iterll": IterLL(epsilon=BUDGET, step=0.03, steps=8),
}
ALL = LINF | {
    "pgd_l2": PGD(norm="l2", epsilon=0.8, step=0.2, steps=6, restarts=2),
    "cw": CW(binary_steps=5, steps=8, rate=0.03),
    "cw_fixed": CW(constant=1.0, binary_steps=1, steps=40, rate=0.03),
    "cw_normalised": CW(constant=1.0, binary_steps=1, steps=40, rate=0.05, space="normalised"),
    "semantic": Semantic(trials=20),
}


def make(attack: Adversarial, images: ImageSet, f: Backbone | None = None, **settings):
    f = f or trained()
    settings = {"strength": attack.strength_at(None)} | settings
    source = ChallengeSetup(attack, attack.family, network=f, weights=digest(f), **settings)
    return source.make(images, np.arange(len(images)))


def coloured(images: ImageSet) -> ImageSet:
    """Return the images in three channels of different strength, so that they have a hue."""
    weights = np.array([1.0, 0.7, 0.4])[None, :, None, None]
    return replace(images, images=(images.images * weights).astype(np.uint8))


class Only(torch.nn.Module):
    """A network that consists of one layer, times 20."""

    feature_layers = ("layer",)

    def __init__(self, layer: torch.nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return 20 * self.layer(x).flatten(1)


MEAN = Only(torch.nn.AdaptiveAvgPool2d(1))
"""Sees which of three channels is the strongest, and nothing else."""
COLOURS = Backbone(MEAN, [0.0] * 3, [1.0] * 3, ("red", "green", "blue"), (3, 8, 8)).eval()


def fit_for(name: str) -> tuple[Backbone, ImageSet]:
    """Return a network and images for an attack: of colours for the semantic one."""
    if name != "semantic":
        return trained(), digits(60)
    images = coloured(digits(60))
    return COLOURS, replace(images, labels=np.zeros(60, np.int64))
