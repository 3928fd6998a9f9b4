"""Exact statistics of per-image gradients under confounding labels; needs torch alone.

How a call of `squared_norms` flows, and where to read on:

    statistics.py         the public functions; beside it stand explain.py, and last_layer.py for
       |                  closed forms without a backward pass
    arguments.py          checks network, images and choices, and makes a Task of them (task.py)
       |
    engine.py             for every chunk of images (memory.py halves it when memory runs out):
       |
       |- recorder.py     1. records the forward pass: every call in which a requested parameter,
       |   |                 or an expression made of some (expressions.py), meets the images
       |   |- layers.py      layer functions -> rule, input, weight, bias
       |   '- rules/         statistics of a layer's gradients from its input and output gradient;
       |                     rules/broadcast.py for bare parameters, costs.py prices the routes
       |- consistency.py  2. checks the batch against one image alone: where images lie in a layer
       |   |                 (layout.py), that they are not mixed, that what seems unused is unused
       |   |- forward_path.py, reordering.py: the passes for which that check holds
       |   '- cached_tensors.py, hidden_parameters.py, refusals.py
       |- graph.py        3. sorts parameters: all their influence through recorded calls, or not
       |- reduction.py    4. one backward pass: a layer's per-image squared norms the moment its
       |   |                 output gradient is there
       |   '- materialised.py: gradients of parameters that are used twice, or in expressions
       '- one_image.py    5. or, where a parameter is not accounted for: one exact pass per image

Whatever would make a number silently wrong is computed one image at a time, or refused.
"""

from gradbench.gradients.explain import ParameterRoute, explain
from gradbench.gradients.last_layer import LastLayer, last_layer
from gradbench.gradients.losses import LOSSES, KHot, Label, Ones, RandomKHot, Zeros, as_loss
from gradbench.gradients.statistics import (
    Alignments,
    GradientNorms,
    alignments,
    mean_gradients,
    outputs,
    squared_norms,
)

__all__ = [
    "LOSSES",
    "Alignments",
    "GradientNorms",
    "KHot",
    "Label",
    "LastLayer",
    "Ones",
    "ParameterRoute",
    "RandomKHot",
    "Zeros",
    "alignments",
    "as_loss",
    "explain",
    "last_layer",
    "mean_gradients",
    "outputs",
    "squared_norms",
]
