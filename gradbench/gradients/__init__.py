"""Exact statistics of per-image gradients under confounding labels; needs torch alone."""

from gradbench.gradients.alignments import Alignments, alignments
from gradbench.gradients.explain import Line, explain
from gradbench.gradients.forward import outputs
from gradbench.gradients.labels import KHot, Label, Ones, RandomKHot, Zeros
from gradbench.gradients.last_layer import LastLayer, last_layer
from gradbench.gradients.losses import LOSSES, as_loss
from gradbench.gradients.norms import GradientNorms, squared_norms
from gradbench.gradients.reference import loop_norms, vmap_norms

__all__ = [
    "LOSSES",
    "Alignments",
    "GradientNorms",
    "KHot",
    "Label",
    "LastLayer",
    "Line",
    "Ones",
    "RandomKHot",
    "Zeros",
    "alignments",
    "as_loss",
    "explain",
    "last_layer",
    "loop_norms",
    "outputs",
    "squared_norms",
    "vmap_norms",
]
