"""Exact squared norms of per-image gradients under confounding labels; needs torch alone."""

from gradbench.gradients.engine import GradientNorms, squared_norms
from gradbench.gradients.labels import KHot, Label, Ones, RandomKHot, Zeros
from gradbench.gradients.losses import LOSSES, as_loss

__all__ = [
    "LOSSES",
    "GradientNorms",
    "KHot",
    "Label",
    "Ones",
    "RandomKHot",
    "Zeros",
    "as_loss",
    "squared_norms",
]
