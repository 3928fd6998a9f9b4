"""What can be read off a network: logits, features, layer means, squared gradient norms.

An output is named by a text: `logits`, `features` (penultimate, the input of the last linear
layer), `layer_means`, or `squared_norms/<label>/<loss>`.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from gradbench.backbones.backbone import Backbone
from gradbench.errors import GradbenchError, unknown
from gradbench.extraction.head import Features
from gradbench.gradients import as_loss, outputs, squared_norms

KINDS = ("logits", "features", "layer_means", "squared_norms")
VERSIONS = {"logits": 2, "features": 1, "layer_means": 2, "squared_norms": 2}
"""VERSION of each kind of output, part of its products' keys."""


def version_of(name: str) -> int:
    """Return the VERSION of an output."""
    return VERSIONS[name.split("/")[0]]


def check(name: str) -> None:
    """Raise a GradbenchError unless a name is that of an output."""
    kind, *rest = name.split("/")
    if kind not in KINDS:
        raise unknown("output", name, KINDS)
    if len(rest) != (2 if kind == "squared_norms" else 0):
        raise GradbenchError(
            f"the output '{name}' is misnamed: write logits, features, "
            "layer_means or squared_norms/<label>/<loss>"
        )
    if rest:
        as_loss(rest[1], rest[0])  # raises for an unknown label or loss


def read(backbone: Backbone, images: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
    """Read several outputs off one forward pass; see `read_counting`."""
    return read_counting(backbone, images, names)[0]


def read_counting(
    backbone: Backbone, images: Tensor, names: Iterable[str]
) -> tuple[dict[str, Tensor], int]:
    """Read several outputs off one forward pass (one for each further label or loss).

    Args:
        backbone: in evaluation mode.
        images: (B, C, H, W) in [0, 1], on the backbone's device.
        names: of the outputs.

    Returns:
        float32 tensors on the CPU: `logits` (B, N), `features` (B, D), `layer_means` (B, features
        of all layers), `squared_norms/...` (B, d) in the order of the network's parameter tensors.
        And how often the engine halved a chunk because memory did not suffice.

    Raises:
        GradbenchError: if features are asked for and the logits are not the output of a linear
            layer.
    """
    halvings = 0
    names = list(names)
    norms = [name for name in names if name.startswith("squared_norms")]
    found: dict[str, Tensor] = {}
    logits: Tensor | None = None
    with (
        Features(backbone, images, "features" in names) as features,  # first: it makes a pass
        _LayerMeans(backbone.network, "layer_means" in names) as means,
    ):
        if norms:
            for position, name in enumerate(norms):
                _, label, loss = name.split("/")
                result = squared_norms(backbone, images, label=label, loss=loss)
                found[name] = result.values
                halvings += result.halvings
                if position == 0 and not result.halvings:
                    logits = result.outputs
                    means.close()  # one pass is enough
                    features.close()
        if logits is None:  # no pass yet, or memory ran out and some images were seen twice
            means.clear()
            features.clear()
            logits = outputs(backbone, images)
    if "logits" in names:
        found["logits"] = logits
    if "features" in names:
        found["features"] = features.value()
    if "layer_means" in names:
        found["layer_means"] = means.value()
    return {name: tensor.detach().float().cpu() for name, tensor in found.items()}, halvings


def tensor_names(backbone: Backbone) -> list[str]:
    """Return the names of the parameter tensors, in the order of the squared norms."""
    return [name for name, _ in backbone.network.named_parameters()]


def feature_layers(network: nn.Module) -> list[str]:
    """Return the layers whose spatial means are read: stem and stages, or the direct children.

    A network names its own in `feature_layers`; of an unknown one every direct child with
    parameters counts, except the last (the classifier).
    """
    named = getattr(network, "feature_layers", None)
    if named:
        return list(named)
    children = [n for n, child in network.named_children() if any(True for _ in child.parameters())]
    return children[:-1] or children


class _LayerMeans:
    """Collects the mean over positions of every feature layer's output during forward passes."""

    def __init__(self, network: nn.Module, wanted: bool):
        self.parts: dict[str, list[Tensor]] = {}
        self.handles = []
        for name in feature_layers(network) if wanted else ():
            self.parts[name] = []
            module = network.get_submodule(name)
            self.handles.append(module.register_forward_hook(self._keeper(name)))

    def __enter__(self) -> _LayerMeans:
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

    def value(self) -> Tensor:
        """Return (B, features), the layers side by side."""
        return torch.cat([torch.cat(parts) for parts in self.parts.values()], dim=1)

    def _keeper(self, name: str):
        def keep(_module, _inputs, output: Tensor) -> None:
            output = output.detach()
            # convolutional maps are (B, C, H, W); anything else has its channels last
            self.parts[name].append(
                output.mean((2, 3))
                if output.dim() == 4
                else output.flatten(1, -2).mean(1)
                if output.dim() > 2
                else output
            )

        return keep
