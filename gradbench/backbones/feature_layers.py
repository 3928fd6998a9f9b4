"""The layers whose means represent a network: stem and stages, or its last blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from gradbench.backbones.shared_tensors import copy_network
from gradbench.errors import GradbenchError, unknown

MAX_LAYERS = 5
"""Layers that are taken of an unknown network: as many as of a ResNet with its stem."""
WRAPPER_SHARE = 0.8
"""Share of the layers of a network from which on a part is no block, but a wrapper of blocks."""


def feature_layers(
    network: nn.Module, shape: Sequence[int], named: Iterable[str] | None = None
) -> tuple[str, ...]:
    """Return the names of a network's feature layers, in its order.

    They are those `named` by the user; or else those that the network's class declares in
    `feature_layers`; or else its last blocks, none of a network that has no parts.

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
        example = ",".join(last_blocks(network, shape)[-2:])
        raise GradbenchError(
            f"backbone.feature_layers={named}: write a list, for example "
            f"backbone.feature_layers=[{example}]"
        )
    names = [str(name) for name in names]
    for name in names:
        if name not in valid:
            raise unknown("layer of the network", name, valid)
    if len(set(names)) < len(names):
        raise GradbenchError(f"backbone.feature_layers={names}: a layer is listed twice")
    return tuple(names)


def last_blocks(network: nn.Module, shape: Sequence[int]) -> list[str]:
    """Return the last blocks of an unknown network, without its classifier: at most five.

    Its parts are those with parameters that a pass of an image (C, H, W) calls, in the order of the
    calls: of the whole network first, then in place of a part that holds nearly all layers (a
    wrapper, `features`, an encoder), or whose output cannot be read (a list of blocks), the parts
    inside. The part that makes the logits and those after it are the classifier. Of layers in a row
    between two blocks only the last counts, so that a stem of convolution and normalisation is one
    place; a network without blocks counts layer by layer, without normalisations.
    """
    try:
        readable, innermost, classifier = _record_pass(network, shape)
    except Exception:  # others' networks may raise anything, which a pass in earnest will report
        return []
    parts = _opened(readable, innermost, _children(innermost, ""))
    head = next(i for i, part in enumerate(parts) if _holds(part, classifier))
    parts = _opened(readable, innermost, parts[:head] or parts)
    parts = [part for part in parts if readable.get(part)]
    modules = [network.get_submodule(part) for part in parts]
    blocks = [any(True for _ in module.children()) for module in modules]
    if any(blocks):
        kept = [block or i + 1 == len(parts) or blocks[i + 1] for i, block in enumerate(blocks)]
    else:
        kept = ["Norm" not in type(module).__name__ for module in modules]
    return ([part for part, keep in zip(parts, kept) if keep] or parts)[-MAX_LAYERS:]


def _record_pass(
    network: nn.Module, shape: Sequence[int]
) -> tuple[dict[str, bool], list[str], str]:
    """Record which parts with parameters a pass of two images of zeros calls.

    A copy in evaluation mode makes the pass, so the network, its hooks and the random numbers stay
    as they are.

    Returns:
        (by name of a part, whether it is called once, with one tensor of all images as output;
        the innermost parts, in the order in which they end;
        of these the head, which makes the logits: a scale or normalisation of the logits counts
        with the linear layer before it)
    """
    outputs: dict[str, list[Any]] = {}
    copy = copy_network(network).eval()
    parts = ((name, part) for name, part in copy.named_modules() if name)
    names = {part: name for name, part in parts if next(part.parameters(), None) is not None}

    def record(module, _inputs, output) -> None:
        if module in names:  # of several calls the last counts for the order
            outputs[names[module]] = [*outputs.pop(names[module], ()), output]

    like = next(p for p in copy.parameters() if p.is_floating_point())
    images = torch.zeros(2, *shape, dtype=like.dtype, device=like.device)
    with torch.no_grad(), torch.random.fork_rng([]), register_module_forward_hook(record):
        logits = copy(images)
    innermost = [n for n in outputs if not any(_holds(n, other) for other in outputs if other != n)]
    makers = [i for i, name in enumerate(innermost) if outputs[name][-1] is logits]
    head = makers[-1] if makers else len(innermost) - 1
    while (
        head
        and not isinstance(copy.get_submodule(innermost[head]), nn.Linear)
        and getattr(outputs[innermost[head - 1]][-1], "shape", None) == logits.shape
    ):
        head -= 1
    readable = {}
    for name, (output, *others) in outputs.items():
        of_images = isinstance(output, Tensor) and output.dim() > 1 and len(output) == 2
        readable[name] = of_images and not others
    return readable, innermost, innermost[head]


def _opened(readable: Mapping[str, bool], innermost: list[str], parts: list[str]) -> list[str]:
    """Replace parts that hold nearly all of these layers, or cannot be read, by their children."""
    layers = {part: sum(_holds(part, name) for name in innermost) for part in parts}
    for part in parts:
        wrapper = 1 < layers[part] >= WRAPPER_SHARE * sum(layers.values())
        children = _children(innermost, part)
        if children and (wrapper or not readable.get(part)):
            parts = [other for other in parts if other != part] + children
            # in the order in which their last layers end
            parts.sort(key=lambda p: max(i for i, n in enumerate(innermost) if _holds(p, n)))
            return _opened(readable, innermost, parts)
    return parts


def _children(innermost: list[str], part: str) -> list[str]:
    """Return the next parts inside a part, in the order in which they end."""
    depth = part.count(".") + 2 if part else 1
    within = [n for n in reversed(innermost) if n != part and (not part or _holds(part, n))]
    return [*dict.fromkeys(".".join(name.split(".")[:depth]) for name in within)][::-1]


def _holds(part: str, name: str) -> bool:
    return name == part or name.startswith(f"{part}.")
