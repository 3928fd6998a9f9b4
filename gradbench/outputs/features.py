"""The penultimate features of f."""

from torch import Tensor

from gradbench.outputs.base import BatchContext, Needs, Output


class Features(Output):
    """The input of the last linear layer: (B, D)."""

    needs = Needs(features=True)

    def read(self, context: BatchContext) -> Tensor:
        """Return the features."""
        return context.features
