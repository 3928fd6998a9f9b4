"""The feature layers of f, each by the means of its output over positions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.errors import GradbenchError
from gradbench.outputs.base import BatchContext, Needs, Output


class LayerMeans(Output):
    """`layer_means/<layer>`: spatial means of all channels of a layer, (B, channels).

    `layer_means` alone stands for one such output of every feature layer of the network, in its
    order, so that the last of them is the deepest.

    Args:
        layer: its name in the network.
    """

    version = 3
    parameters = ("layer",)

    def __init__(self, layer: str | None = None):
        self.layer = layer
        self.needs = Needs(layer_means=(layer,) if layer else ())

    def read(self, context: BatchContext) -> Tensor:
        """Return the means of the layer."""
        return context.layer_means(self.layer)

    def of_network(self, backbone: Backbone) -> Sequence[Output]:
        """Return the output itself, or those of all feature layers.

        Raises:
            GradbenchError: if layers are wanted and the network has none.
        """
        if self.layer:
            return [self]
        if not backbone.feature_layers:
            raise GradbenchError(
                f"{type(backbone.network).__name__} has no parts that could be feature layers: "
                f"leave out the detectors that read {self.name}"
            )
        outputs = [type(self)(layer) for layer in backbone.feature_layers]
        for output in outputs:
            output.name, output.settings = f"{self.name}/{output.layer}", self.settings
        return outputs
