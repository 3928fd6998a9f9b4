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
        network: module from normalised images (B, C, H, W) to logits (B, N), see `find_logits`.
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
        output = self.raw_output(images)
        return output if isinstance(output, Tensor) else find_logits(output, len(self.classes))[1]

    def raw_output(self, images: Tensor) -> Any:
        """Return what the network itself gives for images (B, C, H, W) in [0, 1]."""
        return self.network((images - self.mean) / self.std)

    @property
    def device(self) -> torch.device:
        """The device that the normalisation lies on."""
        return self.mean.device


def find_logits(output: Any, classes: int) -> tuple[str, Tensor]:
    """Return the logits among several outputs of a network, and the name of their entry.

    They are the entry of a tuple, a dictionary or an object that is called `logits`, or else the
    only one of the shape (B, classes).

    Raises:
        GradbenchError: if there is no such entry, or several.
    """
    if isinstance(output, Mapping):
        entries = {str(name): value for name, value in output.items()}
    elif isinstance(output, tuple | list) and not hasattr(output, "_asdict"):
        entries = {f"[{place}]": value for place, value in enumerate(output)}
    else:  # of a named tuple, or the attributes of an object
        attributes = (
            output._asdict() if isinstance(output, tuple) else getattr(output, "__dict__", {})
        )
        entries = {name: value for name, value in attributes.items() if isinstance(value, Tensor)}
    if isinstance(entries.get("logits"), Tensor):
        return "logits", entries["logits"]
    tensors = {name: value for name, value in entries.items() if isinstance(value, Tensor)}
    fitting = [n for n, value in tensors.items() if value.dim() == 2 and value.shape[1] == classes]
    if len(fitting) == 1:
        return fitting[0], entries[fitting[0]]
    described = ", ".join(f"{name} {tuple(value.shape)}" for name, value in tensors.items())
    raise GradbenchError(
        f"the network gives {type(output).__name__}{f' of {described}' if described else ''}, in "
        f"which the logits (B, {classes}) cannot be identified: let forward return them alone, or "
        "under the name logits"
    )


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
