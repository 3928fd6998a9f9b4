"""The layers of a network that stand for its depth: stem and stages, or its last blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from gradbench.backbones.calls import Calls, assumed, heard
from gradbench.errors import GradbenchError, unknown

MOST = 5
"""Layers that are taken of an unknown network: as many as of a ResNet with its stem."""
NEARLY_ALL = 0.8
"""Share of the layers of a network from which on a part is no block, but a wrapper of blocks."""


def feature_layers(
    network: nn.Module, named: Iterable[str] | None = None, shape: Sequence[int] | None = None
) -> tuple[str, ...]:
    """Return the names of a network's feature layers, in its order.

    Args:
        network: without its normalisation.
        named: by the user; None for those that the network's class declares in `feature_layers`,
            or else its last blocks, none of a network that has no parts.
        shape: (C, H, W) of an image, see `last_blocks`.

    Raises:
        GradbenchError: unless they are different layers of the network.
    """
    if named is None:
        declared = getattr(type(network), "feature_layers", None)
        named = declared if isinstance(declared, tuple | list) else last_blocks(network, shape)
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


def last_blocks(network: nn.Module, shape: Sequence[int] | None = None) -> list[str]:
    """Return the last blocks of an unknown network, without its classifier: at most five.

    Its parts are those with parameters that a pass calls, in the order of the calls: of the whole
    network first, then in place of a part that holds nearly all layers (a wrapper, `features`, an
    encoder), or whose output cannot be read (a list of blocks), the parts inside. The part that
    makes the logits and those after it are the classifier. Of layers in a row between two blocks
    only the last counts, so that a stem of convolution and normalisation is one place; a network
    without blocks counts layer by layer, without normalisations.

    Args:
        network: without its normalisation.
        shape: (C, H, W) of an image, to make a pass; without it, or where the pass fails or finds
            nothing, all parts are taken as called once in the order of their registration.
    """
    calls = heard(network, shape) if shape else None
    return (_last(network, calls) if calls else []) or _last(network, assumed(network))


def _last(network: nn.Module, calls: Calls | None) -> list[str]:
    if calls is None:
        return []
    parts = _opened(calls, _inside(calls, ""))
    head = next(i for i, part in enumerate(parts) if _holds(part, calls.head))
    parts = _opened(calls, parts[:head] or parts)
    parts = [part for part in parts if calls.readable.get(part)]
    modules = [network.get_submodule(part) for part in parts]
    blocks = [any(True for _ in module.children()) for module in modules]
    if any(blocks):
        kept = [block or i + 1 == len(parts) or blocks[i + 1] for i, block in enumerate(blocks)]
    else:
        kept = ["Norm" not in type(module).__name__ for module in modules]
    return ([part for part, k in zip(parts, kept) if k] or parts)[-MOST:]


def _opened(calls: Calls, parts: list[str]) -> list[str]:
    """Replace parts that hold nearly all layers of these, or cannot be read, by what is inside."""
    layers = {part: sum(_holds(part, name) for name in calls.innermost) for part in parts}
    for part in parts:
        most = 1 < layers[part] >= NEARLY_ALL * sum(layers.values())
        inner = _inside(calls, part)
        if inner and (most or not calls.readable.get(part)):
            order = {name: i for i, name in enumerate(calls.innermost)}
            found = [other for other in parts if other != part] + inner
            found.sort(key=lambda p: max(i for name, i in order.items() if _holds(p, name)))
            return _opened(calls, found)
    return parts


def _inside(calls: Calls, part: str) -> list[str]:
    """Return the next parts inside a part, in the order in which they end."""
    depth = part.count(".") + 2 if part else 1
    within = [n for n in reversed(calls.innermost) if n != part and (not part or _holds(part, n))]
    return [*dict.fromkeys(".".join(name.split(".")[:depth]) for name in within)][::-1]


def _holds(part: str, name: str) -> bool:
    return name == part or name.startswith(f"{part}.")
