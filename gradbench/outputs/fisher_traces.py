"""The trace of the Fisher information of every parameter tensor, for each image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gradbench.errors import GradbenchError
from gradbench.gradients import squared_norms
from gradbench.outputs.base import BatchContext, Output


class FisherTraces(Output):
    """`fisher_traces`: sum_y p_y ||d log p_y / dtheta_t||^2 of every parameter tensor, (B, d).

    The d columns are the parameter tensors in the network's order; p is the softmax of f, so that
    no label is needed. The sum over y takes C - 1 passes forward and back instead of C: a
    prediction is a chain of choices between class k and those behind it, given that it is none
    before it, and the Fisher information of a chain is the sum of that of its links,

        sum_k p_k q_k / q_(k-1) ||d l_k / dtheta_t||^2,

    with q_k the probability of the classes behind k and l_k = log p_k - log q_k, whose gradient is
    of the order of the logits' own however sure f is.

    Args:
        most_classes: more of them are refused, as each takes a pass.

    Raises:
        GradbenchError: when it is read of a network with more classes.
    """

    def __init__(self, most_classes: int = 200):
        self.most_classes = most_classes

    def read(self, context: BatchContext) -> Tensor:
        """Return the traces."""
        logits = context.logits
        classes = logits.shape[1]
        if classes > self.most_classes:
            raise GradbenchError(
                f"fisher_traces of {classes} classes take {classes - 1} passes through the "
                f"network, where {self.most_classes} classes are the most: leave out the detectors "
                "that read them, or set most_classes in a file output/fisher_traces.yaml in a "
                "folder of --config-dir"
            )
        traces = logits.new_zeros(len(logits), len(context.parameter_names), dtype=torch.float64)
        for k, weight in enumerate(chain_weights(logits).T):
            norms = squared_norms(context.backbone, context.images, loss=log_odds(k))
            context.halvings += norms.halvings
            traces += weight[:, None] * norms.values
        return traces


def chain_weights(logits: Tensor) -> Tensor:
    """Return p_k q_k / q_(k-1) of logits (B, C) for all classes k but the last, (B, C - 1)."""
    logs = logits.double().log_softmax(1)
    behind = logs.flip(1).logcumsumexp(1).flip(1)  # log q_(k-1): of k and those behind it
    return (logs[:, :-1] + behind[:, 1:] - behind[:, :-1]).exp()


def log_odds(k: int) -> Callable[[Tensor], Tensor]:
    """Return the function of logits (B, C) that gives the log-odds of k against those behind it."""
    return lambda logits: logits[:, k] - logits[:, k + 1 :].logsumexp(1)
