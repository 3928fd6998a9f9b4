"""Reads the feature layers of f: the means of their outputs over positions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from gradbench.backbones.backbone import Backbone
from gradbench.errors import GradbenchError

PREFIX = "layer_means"


def expand(backbone: Backbone, names: Iterable[str]) -> list[str]:
    """Return names of outputs, `layer_means` replaced by one name for each feature layer.

    Layers stand in the order of the network, so that the last of them is the deepest.

    >>> from gradbench.backbones.small_cnn import SmallCNN
    >>> f = Backbone(SmallCNN(3), [0.5], [0.5], "abc", (1, 8, 8))
    >>> expand(f, ["logits", "layer_means"])
    ['logits', 'layer_means/stage1', 'layer_means/stage2', 'layer_means/stage3']

    Raises:
        GradbenchError: if layers are asked for and the network has none.
    """
    found: dict[str, None] = {}
    for name in names:
        if name == PREFIX and not backbone.feature_layers:
            raise GradbenchError(
                f"{type(backbone.network).__name__} has no parts that could be feature layers: "
                "leave out the detectors that read layer_means"
            )
        layers = [f"{PREFIX}/{layer}" for layer in backbone.feature_layers]
        found.update(dict.fromkeys(layers if name == PREFIX else [name]))
    return list(found)


def layer_of(name: str) -> str:
    """Return the layer of an output `layer_means/<layer>`."""
    return name.split("/", 1)[1]


def mean_over_positions(output: Tensor, layer: str, size: Sequence[int]) -> Tensor:
    """Return (B, channels) of a layer's output: maps (B, C, H, W), tokens (B, ..., C) or vectors.

    Maps (B, H, W, C), as of Swin transformers, are told by the size of the images: their first two
    axes have its aspect ratio, the last two have not. In doubt channels come first.

    Args:
        output: of the layer.
        layer: its name.
        size: (H, W) of the images.

    Raises:
        GradbenchError: if the layer gives something else than one tensor.
    """
    if not isinstance(output, Tensor) or output.dim() < 2:
        raise GradbenchError(
            f"the layer '{layer}' gives no tensor with images first, so it cannot be a feature "
            "layer: name others in backbone.feature_layers"
        )
    if output.dim() == 4:
        return output.mean((1, 2) if _channels_last(output.shape, size) else (2, 3))
    return output.flatten(1, -2).mean(1) if output.dim() > 2 else output.clone()


def _channels_last(shape: Sequence[int], size: Sequence[int]) -> bool:
    (_, first, middle, last), (height, width) = shape, size

    def fits(rows: int, columns: int) -> bool:  # to less than one row or column
        return abs(rows * width - columns * height) < max(height, width)

    return fits(first, middle) and not fits(middle, last)


class LayerMeans:
    """Collects the means of feature layers during forward passes.

    Args:
        network: that is passed through.
        layers: names of the layers, none to do nothing.
        size: (H, W) of the images.
    """

    def __init__(self, network: nn.Module, layers: Iterable[str], size: Sequence[int]):
        self.size = size
        self.parts: dict[str, list[Tensor]] = {layer: [] for layer in layers}
        self.handles = [
            network.get_submodule(layer).register_forward_hook(self._keeper(layer))
            for layer in self.parts
        ]

    def __enter__(self) -> LayerMeans:
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Stop listening."""
        for handle in self.handles:
            handle.remove()
        self.handles = []

    def clear(self) -> None:
        """Forget what was heard so far."""
        for parts in self.parts.values():
            parts.clear()

    def values(self, images: int) -> dict[str, Tensor]:
        """Return (B, channels) by output name.

        Args:
            images: B, that were passed.

        Raises:
            GradbenchError: if a layer was not called exactly once in a pass.
        """
        for layer, parts in self.parts.items():
            if sum(map(len, parts)) != images:
                raise GradbenchError(
                    f"the layer '{layer}' gave {sum(map(len, parts))} outputs for {images} images, "
                    "so it cannot be a feature layer: name others in backbone.feature_layers"
                )
        return {f"{PREFIX}/{layer}": torch.cat(parts) for layer, parts in self.parts.items()}

    def _keeper(self, layer: str):
        def keep(_module, _inputs, output) -> None:
            self.parts[layer].append(mean_over_positions(output, layer, self.size).detach())

        return keep
