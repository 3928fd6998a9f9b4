"""The loop that FGSM, BIM, PGD and the least-likely-class attack share."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.challenges.attacks.objectives import Objective, slope


def sign_steps(
    network: Backbone,
    clean: Tensor,
    start: Tensor,
    budget: float,
    steps: Iterable[float],
    objective: Objective,
) -> Tensor:
    """Step along the sign of the gradient, and back into the budget and the range of pixels.

    x <- clip(x + step sign(dJ/dx)), sign(0) = +1 as in the code of Lee et al. (2018).

    Args:
        network: f.
        clean: (B, C, H, W) clean grey levels.
        start: where to begin.
        budget: largest change of a pixel, in grey levels.
        steps: length of each step, in grey levels.
        objective: J, which is to rise.

    Returns:
        (B, C, H, W) grey levels in [0, 255], within the budget.
    """
    low, high = (clean - budget).clamp_(min=0), (clean + budget).clamp_(max=255)
    grey = start
    for step in steps:
        up = slope(network, grey, objective) >= 0
        grey = torch.where(up, grey + step, grey - step).clamp_(low, high)
    return grey
