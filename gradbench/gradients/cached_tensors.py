"""Networks that cache tensors made of their parameters in evaluation mode, and ways round that.

LeViT, EfficientFormer and TinyViT gather attention biases once and keep them: a forward pass
without autograd leaves a copy that no gradient reaches, one with autograd a graph that only one
backward pass can use. Such modules compute the tensors afresh when they are in training mode, or
when the cache is empty. Whichever gives the same outputs, with the parameters in the graph, is done
for every pass of the engine; afterwards the network holds what it held.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gradbench.errors import GradbenchError
from gradbench.gradients.graph import leaves_of, nodes_of
from gradbench.gradients.hidden_parameters import changes_outputs, differ, few, shifted
from gradbench.gradients.memory import out_of_memory
from gradbench.gradients.refusals import close, refuse_randomness
from gradbench.gradients.state import attributes, uncompiled

Forward = Callable[[nn.Module, Tensor], Tensor]


@dataclass(frozen=True)
class Bypass:
    """How modules are made to compute what they cache: in training mode, or with an empty cache.

    `changes` are modules and attributes: `training`, which is set, or one that is emptied; where
    `absent`, attributes that hold a tensor are taken away instead of set to None.
    """

    changes: tuple[tuple[str, str], ...]
    absent: bool = False

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Prepare the modules, and put back what they were."""
        with ExitStack() as stack:
            for where, name in self.changes:
                held = vars(model.get_submodule(where))
                value = held.get(name)
                if name in held:
                    stack.callback(held.__setitem__, name, value)
                else:
                    stack.callback(held.pop, name, None)
                if name == "training":
                    held[name] = True
                elif isinstance(value, dict | list):
                    held[name] = type(value)()
                elif self.absent:
                    held.pop(name, None)
                else:
                    held[name] = None
            yield


# by name of modules: their objects would keep the network alive
_BYPASSES: WeakKeyDictionary[nn.Module, Bypass] = WeakKeyDictionary()


@contextmanager
def as_written(model: nn.Module) -> Iterator[None]:
    """Run passes of a network uncompiled and, where it caches tensors, by the bypass found."""
    bypass = _BYPASSES.get(model)
    with ExitStack() as stack:
        stack.enter_context(uncompiled())
        if bypass is not None:
            stack.enter_context(bypass.applied(model))
        yield


def set_bypass(bypass: Bypass | None, model: nn.Module) -> None:
    """Let the passes of a network use a bypass, or none."""
    if bypass is None:
        _BYPASSES.pop(model, None)
    else:
        _BYPASSES[model] = bypass


def find_bypass(
    forward: Forward,
    model: nn.Module,
    image: Tensor,
    parameters: Collection[Tensor],
    outputs: Tensor,
) -> Bypass | None:
    """Look whether a network caches tensors made of parameters; find a bypass and use it.

    Args:
        forward: runs the network, `as_written`, without the caller's hooks.
        model: the network, right after a forward pass of an image with autograd.
        image: the image of that pass, which must be repeated where a bypass is returned.
        parameters: the requested parameters; refused where they are cached and there is no bypass.
        outputs: of that pass.
    """
    unseen = {p for p in parameters if p.is_floating_point()} - leaves_of(outputs)
    graphs = _cached_graphs(model)
    # Modules whose cache this pass has filled: a second pass would share its graph.
    sharing = _used(graphs, forward(model, image)) if graphs else set()
    if not (unseen or sharing):
        return None
    own = dict(_own_modules(model)) if unseen else {}
    owners = {n for n, m in own.items() if not unseen.isdisjoint(m._parameters.values())}
    holders = {n for n, m in own.items() if _tensors(m)}
    # A `train` of its own may clear a cache, wherever that lies.
    switches = {n for n, m in own.items() if type(m).train is not nn.Module.train}
    stale = None
    if owners or holders or switches:
        stale = _stale(forward, model, image, unseen, outputs)
    candidates = _emptied(model, sharing | (holders & owners))
    if stale is not None:
        candidates += _emptied(model, sharing | holders)
    if sharing or stale is not None:  # else a parameter may act in training mode alone
        candidates += [_trained(sharing | owners), _trained(sharing | owners | holders | switches)]
    for bypass in candidates:
        found = _try(bypass, forward, model, image, outputs) if bypass.changes else None
        if found is None:
            continue
        rest = unseen - leaves_of(found)
        if _used(graphs, found) or not (sharing or len(rest) < len(unseen)):
            continue
        if stale is None or _stale(forward, model, image, rest, outputs) is None:
            set_bypass(bypass, model)
            return bypass
    if stale is not None:
        names = few(name for name, p in model.named_parameters() if p in unseen)
        raise GradbenchError(
            f"in evaluation mode the network keeps tensors made of {names}{stale}, so their "
            "gradients cannot be seen: let it compute them in every pass, or choose other "
            "parameters"
        )
    return None


def _try(
    bypass: Bypass, forward: Forward, model: nn.Module, image: Tensor, outputs: Tensor
) -> Tensor | None:
    """Return the outputs by a bypass, if there are any and they are the same."""
    set_bypass(bypass, model)
    devices = [image.device] if image.device.type == "cuda" else []
    try:
        # A module in training mode may draw random numbers for its dropout: that is no bypass.
        with torch.random.fork_rng(devices), refuse_randomness(image.device):
            found = forward(model, image)
        tight = {torch.float64: 1e-10, torch.float32: 1e-5}
        return found if close(found.detach(), outputs.detach(), tight) else None
    except Exception as fault:  # a network may fail in any manner without its cache
        if out_of_memory(fault):
            raise
        return None
    finally:
        set_bypass(None, model)


def _used(graphs: dict[Tensor, str], outputs: Tensor) -> set[str]:
    """Return the modules whose cached tensors these outputs were made of."""
    nodes = nodes_of(outputs)
    return {where for tensor, where in graphs.items() if tensor.grad_fn in nodes}


def _cached_graphs(model: nn.Module) -> dict[Tensor, str]:
    """Return the tensors with a graph that modules hold -> name of the module."""
    return {
        tensor: where
        for where, module in _own_modules(model)
        for _, tensor in _tensors(module)
        if tensor.grad_fn is not None
    }


def _own_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Go over the modules whose class is not one of PyTorch's."""
    for name, module in model.named_modules():
        if not type(module).__module__.startswith("torch."):
            yield name, module


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return attributes and tensors that a module holds beside parameters and ordinary buffers."""
    found: list[tuple[str, Any]] = []
    for name, value in attributes(module).items():
        parts = value.values() if isinstance(value, dict) else value
        parts = parts if isinstance(value, dict | list) else [value]
        found += [(name, part) for part in parts if isinstance(part, Tensor)]
    return [(name, v) for name, v in found if name != "_buffers" or v.grad_fn is not None]


def _trained(modules: Collection[str]) -> Bypass:
    return Bypass(tuple((name, "training") for name in sorted(modules)))


def _emptied(model: nn.Module, modules: Collection[str]) -> list[Bypass]:
    pairs = ((n, attribute) for n in modules for attribute, _ in _tensors(model.get_submodule(n)))
    changes = tuple(sorted(set(pairs)))
    return [Bypass(changes), Bypass(changes, absent=True)]


def _stale(
    forward: Forward, model: nn.Module, image: Tensor, unseen: set[Tensor], outputs: Tensor
) -> str | None:
    """Look whether parameters act once `train` and `eval` were called, on a copy of the network.

    Gives None if they do not; else an addition to the message: nothing, or that the cached tensors
    do not fit the parameters any more.
    """
    if not unseen or any(changes_outputs(partial(forward, model), [list(unseen)], image)):
        return None  # they act, but not by a cache
    modes = [module.training for module in model.modules()]
    places = [i for i, p in enumerate(model.parameters()) if p in unseen]

    def of_copy(change: bool) -> Tensor:
        twin = copy.deepcopy(model)
        twin.train()
        theirs = list(twin.parameters())
        with torch.no_grad(), shifted([theirs[i] for i in places] if change else []):
            twin.eval()
            for module, mode in zip(twin.modules(), modes):
                module.training = mode
            return forward(twin, image)

    try:
        before, after = of_copy(False), of_copy(True)
    except Exception as fault:  # a network may hold anything, and be of one mode
        if out_of_memory(fault):
            raise
        return None
    if not differ(before, after, partial(of_copy, False)):
        return None
    fits = close(before, outputs.detach())
    return "" if fits else " that no longer fit them (call model.train() and model.eval())"
