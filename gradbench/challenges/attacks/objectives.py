"""The objectives that attacks raise, and their gradients in the pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.support.tensors import gradient_in_pixels

AttackObjective = Callable[[Tensor], Tensor]
"""Maps logits (B, N) to (B,): a number that is to rise, image by image."""


def log_odds(logits: Tensor, classes: Tensor) -> Tensor:
    """Return log p(class) - log(1 - p(class)) of softmax probabilities, (B,), exactly.

    Its gradient is that of log p divided by 1 - p: of the same sign and direction in every image.
    But where p rounds to 1 in float32, from a lead of some 17 in the logits on, the gradient of
    the cross entropy has lost the part of the leading class and then vanishes; this one does not.
    """
    own = logits.gather(1, classes[:, None])
    return own.squeeze(1) - logits.scatter(1, classes[:, None], -torch.inf).logsumexp(1)


def margin(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the lead of a class over the best of the others, (B,); negative where it trails."""
    own = logits.gather(1, classes[:, None])
    return own.squeeze(1) - logits.scatter(1, classes[:, None], -torch.inf).amax(1)


def away_from(labels: Tensor) -> AttackObjective:
    """Return the objective of an untargeted attack: the cross entropy of the true label."""
    return lambda logits: -log_odds(logits, labels)


def towards(targets: Tensor) -> AttackObjective:
    """Return the objective of a targeted attack: minus the cross entropy of the target."""
    return lambda logits: log_odds(logits, targets)


def pixel_gradient(network: Backbone, grey: Tensor, objective: AttackObjective) -> Tensor:
    """Return the gradient of the objective in every pixel of (B, C, H, W) grey levels.

    Raises a GradbenchError when autograd does not see how the logits depend on the pixels.
    """
    with torch.enable_grad():
        images = fast_layout(grey / 255).requires_grad_()
        return gradient_in_pixels(objective(network(images)).sum(), images)


def logits_of(network: Backbone, grey: Tensor) -> Tensor:
    """Return the logits (B, N) of grey levels."""
    with torch.no_grad():
        return network(fast_layout(grey / 255))


def fast_layout(images: Tensor) -> Tensor:
    """Return images in the memory layout in which convolutions are quickest."""
    last = images.device.type == "cpu" and images.dtype == torch.float32
    return images.contiguous(memory_format=torch.channels_last) if last else images
