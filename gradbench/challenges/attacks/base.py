"""The base of attacks: their shared settings, and a network that is left as it came."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, ClassVar, get_args

from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.challenges.base import CleanBatch, Derived
from gradbench.config import Keep
from gradbench.errors import GradbenchError, unknown

KEEP = get_args(Keep)
POLICY = ("keep", "noisy_negatives", "noise")
"""Settings that change no image."""


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

    Attributes:
        budget: name of the setting that is the strength.
        passes: forward and backward passes an image takes at most, for plans.
        leaves_early: most images take fewer, since they leave where f errs on them.

    Raises:
        GradbenchError: for a setting out of range.
    """

    keep: str = "all"
    noisy_negatives: bool = False
    noise: float = 0.0625

    kind = "adversarial"
    uses_network = True
    passes = 1.0
    budget: ClassVar[str] = "epsilon"
    leaves_early: ClassVar[bool] = False

    def __post_init__(self):
        if self.keep not in KEEP:
            raise unknown("keep", str(self.keep), KEEP)
        if type(self.noisy_negatives) is not bool:
            raise GradbenchError(
                f"{self.family} noisy_negatives={self.noisy_negatives}: choose true or false"
            )
        self.check_real("noise", 10)
        self.strengths = (getattr(self, self.budget),)

    def settings(self) -> Mapping[str, Any]:
        """Return the settings that images depend on besides the strength."""
        names = (field.name for field in fields(self))
        return {n: getattr(self, n) for n in names if n not in (*POLICY, self.budget)}

    def perturb(
        self, clean: CleanBatch, strength: float, seed: int, network: Backbone | None
    ) -> Tensor:
        """Return attacked grey levels; the network is left as it came.

        Raises:
            GradbenchError: if the network tells fewer than two classes apart.
        """
        if network is None:
            raise GradbenchError(f"{self.family} attacks a network, and none is given")
        self.check_classes(len(network.classes))
        with frozen(network):
            return self.attack(clean, strength, seed, network)

    @abstractmethod
    def attack(self, clean: CleanBatch, strength: float, seed: int, network: Backbone) -> Tensor:
        """Return (B, C, H, W) attacked grey levels; the network is in evaluation mode."""

    def check_classes(self, count: int) -> None:
        """Refuse a network of fewer than two classes: there is nothing to be mistaken for.

        Raises:
            GradbenchError: naming the attack.
        """
        if count < 2:
            raise GradbenchError(
                f"{self.family} needs at least two classes to mistake one for another, and the "
                f"network has {count}"
            )

    def check_real(self, name: str, most: float = 1.0, above: bool = False) -> None:
        """Make a setting a number from 0, excluded with `above`, to `most`; text as `8/255` is one.

        Raises:
            GradbenchError: naming the setting.
        """
        number = value = getattr(self, name)
        try:
            if isinstance(value, str):
                top, _, bottom = value.partition("/")
                number = float(top) / float(bottom or 1)
            valid = not isinstance(number, bool) and 0 <= number <= most
        except (TypeError, ValueError, ZeroDivisionError):
            valid = False
        if not valid or (above and number == 0):
            least = "above 0, up to" if above else "between 0 and"
            raise GradbenchError(f"{self.family} {name}={value}: choose a value {least} {most:g}")
        setattr(self, name, float(number))

    def check_whole(self, name: str) -> None:
        """Refuse a setting that is not a whole number of at least 1.

        Raises:
            GradbenchError: naming the setting.
        """
        value = getattr(self, name)
        if type(value) is not int or value < 1:
            raise GradbenchError(
                f"{self.family} {name}={value}: choose a whole number of at least 1"
            )


@contextmanager
def frozen(network: Backbone) -> Iterator[None]:
    """Have a network in evaluation mode and its parameters frozen, and put both back afterwards."""
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
