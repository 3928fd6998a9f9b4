"""Confounding labels: which outputs are asked to be one (methods: a.1; Lee and AlRegib 2020).

A label is *confounding* when it is no ordinary one: no output, or two and more of the N outputs,
are one. Every label here is a small immutable object that gives its vector once N is known; the
same vector serves every image, so the features do not depend on how images are grouped in batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gradbench.errors import GradbenchError, unknown


class Label(Protocol):
    """Anything that can name its vector of zeros and ones."""

    def vector(self, outputs: int) -> Tensor:
        """Return the label of a network with this many outputs: zeros and ones, shape (N,)."""


@dataclass(frozen=True)
class Ones:
    """Every output is one, the published default."""

    def vector(self, outputs: int) -> Tensor:
        """Return N ones."""
        return torch.ones(outputs)


@dataclass(frozen=True)
class Zeros:
    """No output is one."""

    def vector(self, outputs: int) -> Tensor:
        """Return N zeros."""
        return torch.zeros(outputs)


@dataclass(frozen=True)
class KHot:
    """The named outputs are one, the others zero.

    Args:
        classes: indices of the outputs, at least two, each once.
    """

    classes: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the classes as far as that is possible before N is known."""
        object.__setattr__(self, "classes", tuple(self.classes))
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise GradbenchError(
                f"label KHot({self.classes}) is not confounding: name two or more different classes"
            )

    def vector(self, outputs: int) -> Tensor:
        """Return N zeros with ones at the named outputs.

        Raises:
            GradbenchError: for a class outside 0 .. N-1.
        """
        wrong = [c for c in self.classes if not 0 <= c < outputs]
        if wrong:
            raise GradbenchError(
                f"label KHot names class {wrong[0]}, but the network has classes 0 to {outputs - 1}"
            )
        vector = torch.zeros(outputs)
        vector[list(self.classes)] = 1
        return vector


@dataclass(frozen=True)
class RandomKHot:
    """A random set of k outputs is one; the set is drawn once from the seed, for all images.

    Args:
        k: number of ones, 2 to N.
        seed: seed of the draw.
    """

    k: int
    seed: int = 0

    def vector(self, outputs: int) -> Tensor:
        """Return N zeros with ones at k outputs drawn without replacement.

        Raises:
            GradbenchError: when k is not between 2 and N.
        """
        if not 2 <= self.k <= outputs:
            raise GradbenchError(f"label RandomKHot has k = {self.k}: choose 2 to {outputs}")
        drawn = torch.randperm(outputs, generator=torch.Generator().manual_seed(self.seed))
        return KHot(tuple(drawn[: self.k].tolist())).vector(outputs)


def checked(vector: Tensor, label: Label, outputs: int) -> Tensor:
    """Return the vector of a label of the caller's own, one real number for each output.

    Raises:
        GradbenchError: for anything else.
    """
    fits = isinstance(vector, Tensor) and vector.shape == (outputs,) and not vector.is_complex()
    if fits and vector.isfinite().all():
        return vector
    got = f"shape {tuple(vector.shape)}" if isinstance(vector, Tensor) else type(vector).__name__
    raise GradbenchError(
        f"label {type(label).__name__} must give one real number for each output, shape "
        f"({outputs},), but gave {got}"
    )


NAMED = {"ones": Ones, "zeros": Zeros}
CHOICES = ("ones", "zeros", "KHot(classes)", "RandomKHot(k, seed)")


def as_label(label: str | Label) -> Label:
    """Return the label object for a name, or the object itself.

    Raises:
        GradbenchError: for an unknown name or an object without `vector`.
    """
    if isinstance(label, str):
        if label not in NAMED:
            raise unknown("label", label, CHOICES)
        return NAMED[label]()
    if not callable(getattr(label, "vector", None)):
        raise unknown("label", repr(label), CHOICES)
    return label
