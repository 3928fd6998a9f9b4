"""Which parts of a network one pass calls, in which order, and which of them makes the logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from gradbench.backbones.sharing import copied


@dataclass(frozen=True)
class Calls:
    """The parts of a network that have parameters and are called.

    Attributes:
        readable: called once, with one tensor of all images as output; by name.
        innermost: those without another such part inside, in the order in which they end.
        head: the innermost part that makes the logits.
    """

    readable: Mapping[str, bool]
    innermost: Sequence[str]
    head: str


def heard(network: nn.Module, shape: Sequence[int]) -> Calls | None:
    """Return what a pass of two images of zeros calls; None if the network cannot make it.

    A copy in evaluation mode makes the pass, so the network, its hooks and the random numbers stay
    as they are. The head is the last innermost part whose output is the logits, or else the last
    of all; a scale or normalisation of the logits counts with the linear layer before it.

    Args:
        network: without its normalisation.
        shape: (C, H, W) of an image.
    """
    outputs: dict[str, list[Any]] = {}
    try:
        copy = copied(network).eval()
        names = {module: name for name, module in _parts(copy).items()}

        def hear(module, _inputs, output) -> None:
            if module in names:  # the last call counts for the order
                outputs[names[module]] = [*outputs.pop(names[module], ()), output]

        like = next(p for p in copy.parameters() if p.is_floating_point())
        images = torch.zeros(2, *shape, dtype=like.dtype, device=like.device)
        with torch.no_grad(), torch.random.fork_rng([]), register_module_forward_hook(hear):
            logits = copy(images)
        innermost = _innermost(outputs)
        places = range(len(innermost))
        head = max((i for i in places if outputs[innermost[i]][-1] is logits), default=places[-1])
        while (
            head
            and not isinstance(copy.get_submodule(innermost[head]), nn.Linear)
            and getattr(outputs[innermost[head - 1]][-1], "shape", None) == logits.shape
        ):
            head -= 1
    except Exception:  # a network of others may raise anything; who runs it in earnest will tell
        return None
    readable = {name: len(made) == 1 and _of_images(made[0]) for name, made in outputs.items()}
    return Calls(readable, innermost, innermost[head])


def assumed(network: nn.Module) -> Calls | None:
    """Return the calls if all parts were called once, in the order of their registration."""
    readable = dict.fromkeys(_parts(network), True)
    innermost = _innermost(readable)
    return Calls(readable, innermost, innermost[-1]) if innermost else None


def _parts(network: nn.Module) -> dict[str, nn.Module]:
    return {n: m for n, m in network.named_modules() if n and any(True for _ in m.parameters())}


def _innermost(names: Mapping[str, Any]) -> list[str]:
    around = {a for n in names for a in [*accumulate(n.split("."), "{}.{}".format)][:-1]}
    return [name for name in names if name not in around]


def _of_images(output: Any) -> bool:
    return isinstance(output, Tensor) and output.dim() > 1 and len(output) == 2
