"""The base of attacks: settings, objectives, and a network that is left as it came."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.challenges.base import CleanBatch, Derived
from gradbench.config import Keep
from gradbench.errors import GradbenchError, unknown
from gradbench.support.tensors import gradient_in_pixels

AttackObjective = Callable[[Tensor], Tensor]
"""Maps logits (B, N) to (B,): a number that is to rise, image by image."""
POLICY = ("keep", "noisy_negatives", "noise")
"""Settings that change no image."""
ABOVE_ZERO = ("step", "first_step", "rate")
"""Settings that may not be 0."""


@dataclass(kw_only=True, eq=False)
class Adversarial(Derived):
    """Base of attacks; a subclass is a dataclass whose fields are its settings.

    Which images are measured is no matter of the attack itself but of the protocol; every attack
    carries it as settings, so that a preset may fix them.

    Args:
        keep: `all` attacked images, or only the `successful` ones, those that f classified
            correctly before and takes for another class after. The normal side then holds the
            clean sources of the kept images alone.
        noisy_negatives: put noisy copies of the clean images on the normal side too. With
            keep=successful f must also classify the noisy copy correctly.
        noise: standard deviation of that noise, in the normalised space of f.

    Raises:
        GradbenchError: for a setting out of range: fields of type `int` are at least 1, those of
            type `float | str` from 0 to `most`, given as numbers or as fractions such as "8/255".
    """

    keep: str = "all"
    noisy_negatives: bool = False
    noise: float | str = 0.0625

    kind = "adversarial"
    uses_network = True
    budget: ClassVar[str] = "epsilon"
    """The setting that is the strength."""
    most: ClassVar[Mapping[str, float]] = {"noise": 10}
    """The largest values of settings, 1 where none is named."""
    leaves_early: ClassVar[bool] = False
    """Most images take fewer passes, since they leave once f errs on them."""

    def __post_init__(self):
        if self.keep not in get_args(Keep):
            raise unknown("keep", str(self.keep), get_args(Keep))
        for field in fields(self):
            # annotations are text in modules that import them from __future__
            if field.type in ("int", int):
                self._check_whole(field.name)
            elif field.type in ("float | str", float | str):
                self._check_real(field.name)
        self.strengths = (getattr(self, self.budget),)

    @property
    def passes(self) -> float:
        """Forward and backward passes that an image takes at most, for plans."""
        return math.prod(getattr(self, name, 1) for name in ("steps", "restarts", "binary_steps"))

    def settings(self) -> Mapping[str, Any]:
        """Return the settings that images depend on besides the strength."""
        names = (field.name for field in fields(self))
        return {n: getattr(self, n) for n in names if n not in (*POLICY, self.budget)}

    def perturb(
        self, clean: CleanBatch, strength: float, seed: int, network: Backbone | None
    ) -> Tensor:
        """Return attacked grey levels; the network is left as it came."""
        if network is None:
            raise GradbenchError(f"{self.family} attacks a network, and none is given")
        self.check_classes(len(network.classes))
        with frozen(network):
            return self.attack(clean, strength, seed, network)

    @abstractmethod
    def attack(self, clean: CleanBatch, strength: float, seed: int, network: Backbone) -> Tensor:
        """Return (B, C, H, W) attacked grey levels; the network is in evaluation mode."""

    def check_classes(self, count: int) -> None:
        """Refuse a network of fewer than two classes: there is nothing to be mistaken for."""
        if count < 2:
            raise GradbenchError(
                f"{self.family} needs at least two classes to mistake one for another, and the "
                f"network has {count}"
            )

    def _check_real(self, name: str) -> None:
        """Convert a setting to a number, or refuse it if it is out of range."""
        value, most, above = getattr(self, name), self.most.get(name, 1), name in ABOVE_ZERO
        try:
            top, _, bottom = str(value).partition("/")
            number = float(top) / float(bottom or 1)
            valid = 0 <= number <= most and not (above and number == 0)
        except (TypeError, ValueError, ZeroDivisionError):
            valid = False
        if not valid:
            least = "above 0, up to" if above else "between 0 and"
            raise GradbenchError(f"{self.family} {name}={value}: choose a value {least} {most:g}")
        setattr(self, name, number)

    def _check_whole(self, name: str) -> None:
        value = getattr(self, name)
        if type(value) is not int or value < 1:
            raise GradbenchError(
                f"{self.family} {name}={value}: choose a whole number of at least 1"
            )


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


@contextmanager
def frozen(network: Backbone) -> Iterator[None]:
    """Put a network in evaluation mode with frozen parameters, and restore both afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    try:
        network.eval().requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, needed in flags:
            parameter.requires_grad_(needed)
