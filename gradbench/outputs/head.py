"""The last linear layer of f: its input, the penultimate features, and its weight and bias."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradbench.backbones.backbone import Backbone
from gradbench.gradients import last_layer


def head_of(backbone: Backbone, image: Tensor | None = None) -> nn.Linear:
    """Return the linear layer whose output is the logits, found by looking at one image.

    Args:
        backbone: in evaluation mode.
        image: (1, C, H, W) to look at; None for a black one of the backbone's shape.

    Raises:
        GradbenchError: if the logits are not the output of a linear layer.
    """
    if image is None:
        image = torch.zeros(1, *backbone.shape)
    return backbone.get_submodule(last_layer(backbone, image.to(backbone.device)).layer)


def head_tensors(backbone: Backbone) -> dict[str, Tensor]:
    """Return `head/weight` (classes, D) and `head/bias` (classes,), zeros where there is none."""
    head = head_of(backbone)
    bias = torch.zeros(head.out_features) if head.bias is None else head.bias
    tensors = {"head/weight": head.weight, "head/bias": bias}
    return {name: t.detach().float().cpu().clone() for name, t in tensors.items()}


class Features:
    """Collects the input of the last linear layer, (B, D), during forward passes.

    Args:
        backbone: in evaluation mode.
        images: (B, C, H, W) that will pass; the first is used to find the layer.
        wanted: False to do nothing at all.
    """

    def __init__(self, backbone: Backbone, images: Tensor, wanted: bool):
        self.parts: list[Tensor] = []
        self.handle = None
        if wanted:
            head = head_of(backbone, images[:1])
            self.handle = head.register_forward_pre_hook(self._keep, with_kwargs=True)

    def __enter__(self) -> Features:
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Stop listening."""
        if self.handle is not None:
            self.handle.remove()

    def clear(self) -> None:
        """Forget what was heard so far."""
        self.parts.clear()

    def value(self) -> Tensor:
        """Return (B, D)."""
        return torch.cat(self.parts)

    def _keep(self, _module: nn.Module, args: tuple, kwargs: dict) -> None:
        # a copy: the input may be a view that would keep more than itself
        self.parts.append((args[0] if args else kwargs["input"]).detach().clone())
