"""The squared gradient norms of f, one for each parameter tensor."""

from torch import Tensor

from gradbench.gradients import as_loss
from gradbench.outputs.base import BatchContext, Needs, Output


class SquaredNorms(Output):
    """`squared_norms/<label>/<loss>`: ||dJ/dtheta_t||^2 (Lee and AlRegib 2020), (B, d).

    The d columns are the parameter tensors in the network's order.

    Args:
        label: confounding label: ones, zeros.
        loss: J: bce, ce_uniform, ce_sum_one_hot, mse.

    Raises:
        GradbenchError: for an unknown label or loss.
    """

    version = 2
    parameters = ("label", "loss")

    def __init__(self, label: str, loss: str):
        as_loss(loss, label)  # raises for an unknown one
        self.label, self.loss = label, loss
        self.needs = Needs(gradients=((label, loss),))

    def read(self, context: BatchContext) -> Tensor:
        """Return the squared norms."""
        return context.squared_norms(self.label, self.loss)
