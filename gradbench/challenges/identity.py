"""The challenge that changes nothing: a control that every score must leave at chance."""

from torch import Tensor

from gradbench.challenges.base import Clean, Derived


class Identity(Derived):
    """The clean images themselves, put through everything a challenge goes through."""

    kind = "control"
    family = "identity"
    strengths = (0.0,)

    def perturb(self, clean: Clean, strength: float, seed: int, network=None) -> Tensor:
        """Return the grey levels as they are."""
        return clean.grey.clone()
