"""The states of the neurons of f's feature layers: activations times gradients of a divergence."""

from torch import Tensor

from gradbench.outputs.base import BatchContext, Needs
from gradbench.outputs.layer_means import LayerMeans
from gradbench.outputs.layers import mean_over_positions

LOSS = "kl_from_uniform"


class NeuronStates(LayerMeans):
    """`neuron_states/<layer>`: mean of a channel times dKL(u, p) for a shift of it, (B, channels).

    The mean over positions of the channel's output z, times the sum over positions of the gradient
    of KL(u, p) with respect to z (Liu et al. 2024); u is uniform over the classes, p the softmax
    of f. Both are pooled before they are multiplied, as in the authors' code. That sums both, so
    that its values are these times the number of positions; of the last maps before an average
    pooling these are the values of its layer `avgpool`.

    `neuron_states` alone stands for one such output of every feature layer of the network.

    Args:
        layer: its name in the network.
    """

    version = 1

    def __init__(self, layer: str | None = None):
        super().__init__(layer)
        self.needs = Needs(layer_gradients=((LOSS, layer),) if layer else ())

    def read(self, context: BatchContext) -> Tensor:
        """Return the states of the layer's channels.

        Raises:
            GradbenchError: see `BatchContext.layer_gradient`.
        """
        output, gradient = context.layer_gradient(LOSS, self.layer)
        size = context.images.shape[2:]
        means = mean_over_positions(output, self.layer, size)
        positions = output[0].numel() // means.shape[1]
        return means * mean_over_positions(gradient, self.layer, size) * positions
