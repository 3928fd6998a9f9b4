"""Keeps what passes through the layers of f: their outputs, the means of these, and the features.

*Features* are the input of the last linear layer, whose output is the logits. The *mean* of a
layer is that of its output over all positions: one number for each channel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from gradbench.backbones.backbone import Backbone
from gradbench.backbones.shared_tensors import copy_network
from gradbench.errors import GradbenchError, unknown
from gradbench.gradients import last_layer

FEATURES = ("features", "")
"""The place of the features among those that a `Recorder` keeps."""
CONNECTED = "connected"
"""The kind of place whose tensor stays in autograd's graph, for gradients with respect to it."""


class Recorder:
    """Keeps tensors of some places of f while images pass through, in chunks of any size.

    A place is `FEATURES`, or `means`, `activations` or `CONNECTED` with the name of a layer. What
    goes wrong at one place is raised when that place is asked for, so that the others can be read.

    Args:
        backbone: f in evaluation mode.
        images: (B, C, H, W) that will pass; the first is used to find the last layer.
        places: that are kept; none to do nothing.
    """

    def __init__(self, backbone: Backbone, images: Tensor, places: Iterable[tuple[str, str]]):
        self.size, self.count = images.shape[2:], len(images)
        self._parts: dict[tuple[str, str], list[Tensor]] = {place: [] for place in places}
        self._faults: dict[tuple[str, str], GradbenchError] = {}
        self._handles = []
        # finding the last layer takes a pass of its own, which no other hook may see
        for place in sorted(self._parts, key=lambda place: place != FEATURES):
            try:
                self._handles.append(self._listen(backbone, images, place))
            except GradbenchError as fault:
                self._faults[place] = fault

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_):
        for handle in self._handles:
            handle.remove()

    def clear(self) -> None:
        """Forget what passed so far."""
        for parts in self._parts.values():
            parts.clear()

    def holds(self, place: tuple[str, str]) -> bool:
        """Tell whether a place is one of those that are kept."""
        return place in self._parts

    def values(self, place: tuple[str, str]) -> Tensor:
        """Return the tensor (B, ...) of a place.

        Raises:
            GradbenchError: if there is no such layer, it gives no tensor, or it was not called
                exactly once in a pass.
        """
        if place in self._faults:
            raise self._faults[place]
        parts, layer = self._parts[place], place[1]
        if layer and sum(map(len, parts)) != self.count:
            raise GradbenchError(
                f"the layer '{layer}' gave {sum(map(len, parts))} outputs for {self.count} images, "
                "so it cannot be a feature layer: name others in backbone.feature_layers"
            )
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _listen(self, backbone: Backbone, images: Tensor, place: tuple[str, str]):
        kind, layer = place
        if place == FEATURES:
            head = head_of(backbone, images[:1])

            def keep_input(_module, args: tuple, kwargs: dict) -> None:
                # a copy: the input may be a view that would keep more than itself
                value = args[0] if args else kwargs["input"]
                self._parts[place].append(value.detach().clone())

            return head.register_forward_pre_hook(keep_input, with_kwargs=True)
        layers = dict(backbone.network.named_modules())
        if layer not in layers:
            raise unknown("layer", layer, filter(None, layers))

        def keep_output(_module, _inputs, output) -> Tensor | None:
            try:
                if kind == CONNECTED:
                    self._parts[place].append(_tensor_of(output, layer))
                    return output.clone()  # what follows may write to it
                if kind == "means":
                    value = mean_over_positions(output, layer, self.size)
                else:
                    value = _tensor_of(output, layer).clone()
                self._parts[place].append(value.detach())
            except GradbenchError as fault:
                self._faults[place] = fault
            return None

        return layers[layer].register_forward_hook(keep_output)


def mean_over_positions(output: Tensor, layer: str, size: Sequence[int]) -> Tensor:
    """Return (B, channels) of a layer's output: maps (B, C, H, W), tokens (B, ..., C) or vectors.

    Maps (B, H, W, C), as of Swin transformers, are told by the size (H, W) of the images: their
    first two axes have its aspect ratio, the last two have not. In doubt channels come first.

    Raises:
        GradbenchError: if the layer gives something else than one tensor.
    """
    _tensor_of(output, layer)
    if output.dim() == 4:
        return output.mean((1, 2) if _channels_last(output.shape, size) else (2, 3))
    return output.flatten(1, -2).mean(1) if output.dim() > 2 else output.clone()


def _tensor_of(output, layer: str) -> Tensor:
    if not isinstance(output, Tensor) or output.dim() < 2:
        raise GradbenchError(
            f"the layer '{layer}' gives no tensor with images first, so it cannot be a feature "
            "layer: name others in backbone.feature_layers"
        )
    return output


def _channels_last(shape: Sequence[int], size: Sequence[int]) -> bool:
    (_, first, middle, last), (height, width) = shape, size

    def fits(rows: int, columns: int) -> bool:  # to less than one row or column
        return abs(rows * width - columns * height) < max(height, width)

    return fits(first, middle) and not fits(middle, last)


def head_of(backbone: Backbone, image: Tensor | None = None) -> nn.Linear:
    """Return the linear layer whose output is the logits, found by looking at one image.

    That is `image` (1, C, H, W), or a black one of the backbone's shape.

    Raises:
        GradbenchError: if the logits are not the output of a linear layer.
    """
    if image is None:
        image = torch.zeros(1, *backbone.shape)
    return backbone.get_submodule(last_layer(backbone, image.to(backbone.device)).layer)


def last_stage(backbone: Backbone) -> list[str]:
    """Return the names of f's parameters in its last stage, behind its last but one feature layer.

    That is what a pass of a black image calls after that layer has ended, but for the last linear
    layer; behind an earlier one where that is no more than a normalisation. All but the last linear
    layer where f has no two feature layers.
    """
    copy = copy_network(backbone).cpu().eval()
    names = {module: name for name, module in copy.named_modules()}
    begun: list[nn.Module] = []
    ended: dict[str, int] = {}

    def begin(module, _inputs) -> None:
        if module in names:
            begun.append(module)

    def end(module, _inputs, _output) -> None:
        if module in names:
            ended[names[module]] = len(begun)

    image = torch.zeros(1, *copy.shape)
    with (
        torch.no_grad(),
        torch.random.fork_rng([]),
        register_module_forward_pre_hook(begin),
        register_module_forward_hook(end),
    ):
        copy(image)
    try:
        head = set(head_of(copy, image).parameters())
    except GradbenchError:  # the logits come from something else
        head = set()
    for layer in (*reversed(copy.feature_layers[:-1]), ""):
        behind = begun[ended.get(f"network.{layer}", 0) if layer else 0 :]
        inside = {p for module in behind for p in module.parameters()} - head
        if any(p.ndim > 1 for p in inside):
            return [name for name, p in copy.named_parameters() if p in inside]
    return [name for name, _ in copy.named_parameters()]


def head_tensors(backbone: Backbone) -> dict[str, Tensor]:
    """Return `head/weight` (classes, D) and `head/bias` (classes,), zeros where there is none."""
    head = head_of(backbone)
    bias = torch.zeros(head.out_features) if head.bias is None else head.bias
    tensors = {"head/weight": head.weight, "head/bias": bias}
    return {name: t.detach().float().cpu().clone() for name, t in tensors.items()}
