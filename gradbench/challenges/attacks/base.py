"""What all attacks share: their settings, and a network that is left as it came."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, get_args

from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.challenges.base import CleanBatch, Derived
from gradbench.config import Keep
from gradbench.errors import GradbenchError, unknown

KEEP = get_args(Keep)


class Adversarial(Derived):
    """Base of attacks.

    Which images are measured is no matter of the attack itself but of the protocol; every attack
    carries it as settings, so that a preset may fix them. They change no image.

    Args:
        strength: the one strength there is.
        keep: `all` attacked images, or only the `successful` ones, those that f classified
            correctly before and takes for another class after. The normal side then holds the
            clean sources of the kept images alone.
        noisy_negatives: put noisy copies of the clean images on the normal side too. With
            keep=successful f must also classify the noisy copy correctly.
        noise: standard deviation of that noise, in the normalised space of f.

    Attributes:
        passes: forward and backward passes an image takes at most, for plans.
        leaves_early: most images take fewer, since they leave where f errs on them.

    Raises:
        GradbenchError: for a setting out of range.
    """

    kind = "adversarial"
    uses_network = True
    passes: float = 1.0
    leaves_early: ClassVar[bool] = False

    def __init__(
        self,
        strength: float,
        keep: str,
        noisy_negatives: bool,
        noise: float,
    ):
        if keep not in KEEP:
            raise unknown("keep", str(keep), KEEP)
        if type(noisy_negatives) is not bool:
            raise GradbenchError(
                f"{self.family} noisy_negatives={noisy_negatives}: choose true or false"
            )
        self.strengths = (strength,)
        self.keep, self.noisy_negatives = keep, noisy_negatives
        self.noise = self.real("noise", noise, 10)

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
        with steady(network):
            return self.attack(clean, strength, seed, network)

    @abstractmethod
    def attack(self, clean: CleanBatch, strength: float, seed: int, network: Backbone) -> Tensor:
        """Return (B, C, H, W) attacked grey levels of a network that stands still."""

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

    def real(self, name: str, value: Any, most: float = 1.0, above: bool = False) -> float:
        """Return a setting as a number between 0 and `most`; `8/255` may be given as text.

        Args:
            name: of the setting.
            value: what was given.
            most: largest valid value.
            above: 0 itself is not valid.

        Raises:
            GradbenchError: if it is not such a number.
        """
        number = value
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
        return float(number)

    def whole(self, name: str, value: Any) -> int:
        """Return a setting as a whole number of at least 1.

        Raises:
            GradbenchError: if it is not such a number.
        """
        if type(value) is not int or value < 1:
            raise GradbenchError(
                f"{self.family} {name}={value}: choose a whole number of at least 1"
            )
        return value


@contextmanager
def steady(network: Backbone) -> Iterator[None]:
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
