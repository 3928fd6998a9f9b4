"""The layers of a network that stand for its depth: stem and stages, or its last blocks."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from gradbench.errors import GradbenchError, unknown

MOST = 5
"""Layers that are taken of an unknown network: as many as of a ResNet with its stem."""


def feature_layers(network: nn.Module, named: Iterable[str] | None = None) -> tuple[str, ...]:
    """Return the names of a network's feature layers, in its order.

    Args:
        network: without its normalisation.
        named: by the user; None for those that the network's class declares in `feature_layers`,
            or else its last blocks, none of a network that has no parts.

    Raises:
        GradbenchError: unless they are different layers of the network.
    """
    if named is None:
        declared = getattr(type(network), "feature_layers", None)
        named = declared if isinstance(declared, tuple | list) else last_blocks(network)
        if not named:
            return ()
    valid = [name for name, _ in network.named_modules() if name]
    if isinstance(named, str) or not isinstance(named, Iterable) or not (names := list(named)):
        example = ",".join(last_blocks(network)[-2:])
        raise GradbenchError(
            f"backbone.feature_layers={named}: write a list, for example "
            f"backbone.feature_layers=[{example}]"
        )
    names = [str(name) for name in names]
    for name in names:
        if name not in valid:
            raise unknown("layer of the network", name, valid)
    if len(set(names)) < len(names):
        raise GradbenchError(f"backbone.feature_layers={names}: a layer stands there twice")
    return tuple(names)


def last_blocks(network: nn.Module) -> list[str]:
    """Return the last blocks of an unknown network, without its classifier: at most five.

    The parts of a network are its direct children with parameters; a single part that wraps all
    others (`features`) is opened. Of layers in a row between two blocks only the last counts, so
    that a stem of convolution and normalisation is one place; a network without blocks counts
    layer by layer, without normalisations.
    """
    parts = _with_parameters(network)
    parts = parts[:-1] or parts
    while len(parts) == 1 and len(inner := _with_parameters(parts[0][1], parts[0][0])) > 1:
        parts = inner
    blocks = [any(True for _ in module.children()) for _, module in parts]
    if any(blocks):
        last_of_row = [
            block or i + 1 == len(parts) or blocks[i + 1] for i, block in enumerate(blocks)
        ]
    else:
        last_of_row = [not _is_norm(module) for _, module in parts]
    names = [name for (name, _), kept in zip(parts, last_of_row) if kept]
    return (names or [name for name, _ in parts])[-MOST:]


def _with_parameters(module: nn.Module, inside: str = "") -> list[tuple[str, nn.Module]]:
    start = f"{inside}." if inside else ""
    return [
        (start + name, child)
        for name, child in module.named_children()
        if any(True for _ in child.parameters())
    ]


def _is_norm(module: nn.Module) -> bool:
    return "Norm" in type(module).__name__
