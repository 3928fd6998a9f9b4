"""The logits of f."""

from torch import Tensor

from gradbench.outputs.base import BatchContext, Output


class Logits(Output):
    """The logits of f, (B, classes)."""

    version = 2

    def read(self, context: BatchContext) -> Tensor:
        """Return the logits."""
        return context.logits
