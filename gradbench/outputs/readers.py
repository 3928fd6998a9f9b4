"""What can be read off a network: logits, features, layer means, squared gradient norms.

An output is named by a text: `logits`, `features` (penultimate, the input of the last linear
layer), `layer_means/<layer>`, or `squared_norms/<label>/<loss>`. `layer_means` alone stands for one
output of each feature layer of the backbone.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.errors import GradbenchError, unknown
from gradbench.gradients import as_loss, outputs, squared_norms
from gradbench.outputs.feature_layers import (
    PREFIX,
    LayerMeans,
    expand,
    layer_of,
)
from gradbench.outputs.head import Features

KINDS = ("logits", "features", "layer_means", "squared_norms")
VERSIONS = {"logits": 2, "features": 1, "layer_means": 3, "squared_norms": 2}
"""VERSION of each kind of output, part of its products' keys."""


def version_of(name: str) -> int:
    """Return the VERSION of an output."""
    return VERSIONS[name.split("/")[0]]


def check(name: str) -> None:
    """Raise a GradbenchError unless a name is that of an output."""
    kind, *rest = name.split("/")
    if kind not in KINDS:
        raise unknown("output", name, KINDS)
    if kind == PREFIX:
        return
    if len(rest) != (2 if kind == "squared_norms" else 0):
        raise GradbenchError(
            f"the output '{name}' is misnamed: write logits, features, layer_means, "
            "layer_means/<layer> or squared_norms/<label>/<loss>"
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
        float32 tensors on the CPU: `logits` (B, N), `features` (B, D), `layer_means/...` (B,
        channels) for each layer in the network's order, `squared_norms/...` (B, d) in the order of
        the network's parameter tensors. And how often the engine halved a chunk because memory did
        not suffice.

    Raises:
        GradbenchError: if features are asked for and the logits are not the output of a linear
            layer.
    """
    halvings = 0
    names = expand(backbone, names)
    layers = [layer_of(name) for name in names if name.startswith(f"{PREFIX}/")]
    norms = [name for name in names if name.startswith("squared_norms")]
    found: dict[str, Tensor] = {}
    logits: Tensor | None = None
    with (
        Features(backbone, images, "features" in names) as features,  # first: it makes a pass
        LayerMeans(backbone.network, layers, images.shape[2:]) as means,
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
    found |= means.values(len(images))
    return {name: found[name].detach().float().cpu() for name in names}, halvings


def tensor_names(backbone: Backbone) -> list[str]:
    """Return the names of the parameter tensors, in the order of the squared norms."""
    return [name for name, _ in backbone.network.named_parameters()]
