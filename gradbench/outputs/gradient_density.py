"""How many gradients with respect to the outputs of normalisations are not zero."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from gradbench.backbones.backbone import Backbone
from gradbench.errors import GradbenchError
from gradbench.outputs.base import BatchContext, Output
from gradbench.outputs.layer_gradients import layer_gradients

CHUNK = 16
"""Images a pass: all maps of all layers are held at once, some 60 MiB an image of a DenseNet."""


class GradientDensity(Output):
    """`gradient_density`: of every batch normalisation its part of the score of GAIA-Z, (B, L).

    The share of positions at which the gradient of the largest logit with respect to the layer's
    output is not zero, squared and summed over the layer's channels, over the number of channels
    of all layers (Chen et al. 2023). The L columns, layers in the network's order, add up to the
    mean of the squared shares over all channels. A gradient is exactly zero where every ReLU that
    it would have to pass is off.
    """

    def read(self, context: BatchContext) -> Tensor:
        """Return the parts of the layers.

        Raises:
            GradbenchError: if the network has no batch normalisation, one has no part in the
                logits, or an image has no gradient of its own.
        """
        modules = context.backbone.network.named_modules()
        layers = [name for name, module in modules if isinstance(module, _BatchNorm)]
        if not layers:
            raise GradbenchError(
                f"{type(context.backbone.network).__name__} has no batch normalisation, whose "
                f"gradients {self.name} counts: leave out the detectors that read it"
            )
        chunks = context.images.split(CHUNK)
        return torch.cat([_parts(context.backbone, images, layers) for images in chunks])


def _parts(backbone: Backbone, images: Tensor, layers: Sequence[str]) -> Tensor:
    """Return the parts of the layers for some images, (B, L)."""
    parts, channels = [], 0
    for result in layer_gradients(backbone, images, "max_logit", layers).values():
        if isinstance(result, GradbenchError):
            raise result
        _, gradient = result
        shares = (gradient != 0).flatten(2).double().mean(2)
        parts.append(shares.square().sum(1))
        channels += shares.shape[1]
    return torch.stack(parts, dim=1) / channels
