"""A network together with the normalisation of its input, and with logits as its output."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradbench.backbones.feature_layers import feature_layers as layers_of
from gradbench.errors import GradbenchError
from gradbench.support.code_keys import code_key, stable_config, stable_name
from gradbench.support.instantiate import imported_targets


class Backbone(nn.Module):
    """Any classifier behind one door: pixels in [0, 1] in, logits out.

    Args:
        network: module from normalised images (B, C, H, W) to logits (B, N), alone or as `logits`.
        mean: of each channel, in [0, 1]; likewise `std`.
        std: see `mean`.
        classes: names of the labels, in order.
        shape: (C, H, W) of the images that the network was made for.
        config: class path and arguments that the network was built from, where it was.
        feature_layers: layers whose means are its features layer by layer; None for those that
            the network declares, or its last blocks, found by a pass of a copy.

    Raises:
        GradbenchError: for a feature layer that the network has not.
    """

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        classes: Sequence[str],
        shape: Sequence[int],
        config: Mapping[str, Any] | None = None,
        feature_layers: Sequence[str] | None = None,
    ):
        super().__init__()
        self.network = network
        self.classes = tuple(classes)
        self.shape = tuple(shape)
        self.config = dict(config or {})
        self.feature_layers = layers_of(network, self.shape, feature_layers)
        for name, values in (("mean", mean), ("std", std)):
            values = torch.tensor(list(values), dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> logits (B, N)."""
        return logits_among(self.network((images - self.mean) / self.std))

    @property
    def device(self) -> torch.device:
        """The device that the normalisation lies on."""
        return self.mean.device


def logits_among(output: Any) -> Tensor:
    """Return a network's output, or the entry `logits` of its dictionary or object of several."""
    if isinstance(output, Tensor):
        return output
    mapping = isinstance(output, Mapping)
    logits = output.get("logits") if mapping else getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        raise GradbenchError(
            f"the network gives {type(output).__name__}, in which nothing is called logits: let "
            "forward return the logits (B, classes) alone, or under this name"
        )
    return logits


def defining_classes(network: nn.Module, target: str | None = None) -> list[Any]:
    """Return the classes of a network's modules, and the class or function of its class path."""
    return [*{type(module) for module in network.modules()}, *imported_targets(target)]


def digest(backbone: Backbone) -> str:
    """Return the SHA-256 of a network's class, arguments, structure, weights and normalisation.

    It covers the source of all classes from outside the package that the network is made of.
    """
    kind = stable_name(type(backbone.network))
    about = [kind, stable_config(backbone.config), str(backbone.network)]
    target = backbone.config.get("_target_")
    if code := code_key(*defining_classes(backbone.network, target)):
        about.append(code)
    sha = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    tensors = dict(backbone.network.state_dict(), mean=backbone.mean, std=backbone.std)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()
