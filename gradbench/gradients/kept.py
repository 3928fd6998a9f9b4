"""Networks that keep tensors made of their parameters in evaluation mode, and how to go round them.

LeViT, EfficientFormer and TinyViT gather attention biases once and keep them: a forward pass
without autograd leaves a copy that no gradient reaches, one with autograd a graph that only one
backward pass can use. Such modules compute the tensors afresh when they are in training mode, or
when nothing is kept. Whichever gives the same outputs, with the parameters in the graph, is taken
for every pass of the engine; afterwards the network holds what it held.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from gradbench.errors import GradbenchError
from gradbench.gradients.graph import leaves_of, nodes_of
from gradbench.gradients.guard import close, refuse_randomness
from gradbench.gradients.memory import out_of_memory
from gradbench.gradients.state import attributes, uncompiled
from gradbench.gradients.unseen import acting, differ, shifted

Place = tuple[str, str, Any]
"""Module, attribute, and key of a dictionary or place in a list, or None."""
Forward = Callable[[nn.Module, Tensor], Tensor]


@dataclass(frozen=True)
class Way:
    """How modules are made to compute what they keep: in training mode, or emptied.

    Args:
        changes: module, attribute: `training`, which is set, or one that is emptied.
        absent: whether attributes that hold a tensor are taken away, instead of set to None.
    """

    changes: tuple[tuple[str, str], ...]
    absent: bool = False

    @contextmanager
    def taken(self, model: nn.Module) -> Iterator[None]:
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
_WAYS: WeakKeyDictionary[nn.Module, Way] = WeakKeyDictionary()


@contextmanager
def passing(model: nn.Module) -> Iterator[None]:
    """Run passes of a network uncompiled and, where it keeps tensors, by the way found for it."""
    way = _WAYS.get(model)
    with ExitStack() as stack:
        stack.enter_context(uncompiled())
        if way is not None:
            stack.enter_context(way.taken(model))
        yield


def find_way(
    forward: Forward, model: nn.Module, image: Tensor, parameters: Collection[Tensor], seen: Tensor
) -> Way | None:
    """Look whether a network keeps tensors made of parameters; find a way round and use it.

    Args:
        forward: runs the network, by `passing`, without the caller's hooks.
        model: the network, right after a forward pass with autograd.
        image: the image of that pass.
        parameters: the asked parameters.
        seen: the outputs of that pass.

    Returns:
        The way, if one is needed; the pass must then be repeated.

    Raises:
        GradbenchError: when it keeps what was made of asked parameters, and there is no way.
    """
    unseen = {p for p in parameters if p.is_floating_point()} - leaves_of(seen)
    graphs = _kept_graphs(model)
    old = _used(graphs, forward(model, image)) if graphs else []
    if not (unseen or old):
        return None
    own = dict(_own_modules(model)) if unseen else {}
    owners = [name for name, module in own.items() if not unseen.isdisjoint(_direct(module))]
    holders = [name for name, module in own.items() if _tensors(module)]
    switches = [name for name, m in own.items() if type(m).train is not nn.Module.train]
    stale = None
    if owners or holders or switches:
        stale = _refreshed(forward, model, image, unseen, seen)
    ways = _emptied(model, {*old, *(name for name in holders if name in owners)})
    if stale is not None:
        ways += _emptied(model, {*old, *holders})
    if old or stale is not None:  # else a parameter may act in training mode alone
        ways += [_trained({*old, *owners}), _trained({*old, *owners, *holders, *switches})]
    for way in ways:
        if not way.changes:
            continue
        found = _try(way, forward, model, image, seen)
        if found is None:
            continue
        rest = unseen - leaves_of(found)
        if _used(graphs, found) or not (old or len(rest) < len(unseen)):
            continue
        if stale is None or _refreshed(forward, model, image, rest, seen) is None:
            use(way, model)
            return way
    if stale is not None:
        named = {p: name for name, p in model.named_parameters()}
        names = [named[p] for p in parameters if p in unseen]
        few = ", ".join(names[:4]) + (" and others" if len(names) > 4 else "")
        raise GradbenchError(
            f"in evaluation mode the network keeps tensors made of {few}{stale}, so their "
            "gradients cannot be seen: let it compute them in every pass, or choose other "
            "parameters"
        )
    return None


def use(way: Way | None, model: nn.Module) -> None:
    """Let the passes of a network take a way, or none."""
    if way is None:
        _WAYS.pop(model, None)
    else:
        _WAYS[model] = way


def _try(
    way: Way, forward: Forward, model: nn.Module, image: Tensor, seen: Tensor
) -> Tensor | None:
    """Return the outputs by a way, if there are any and they are the same."""
    use(way, model)
    devices = [image.device] if image.device.type == "cuda" else []
    try:
        # A module in training mode may draw random numbers, for its dropout: then it is no way.
        with torch.random.fork_rng(devices), refuse_randomness(image.device):
            found = forward(model, image)
        tight = {torch.float64: 1e-10, torch.float32: 1e-5}
        return found if close(found.detach(), seen.detach(), tight) else None
    except Exception as fault:  # a network may fail in any manner without what it keeps
        if isinstance(fault, RuntimeError) and out_of_memory(fault):
            raise
        return None
    finally:
        use(None, model)


def _used(graphs: Mapping[Place, Tensor], outputs: Tensor) -> list[str]:
    """Return the modules whose kept tensors these outputs were made of."""
    nodes = nodes_of(outputs)
    return sorted({place[0] for place, tensor in graphs.items() if tensor.grad_fn in nodes})


def _kept_graphs(model: nn.Module) -> dict[Place, Tensor]:
    return {
        (where, *place): tensor
        for where, module in _own_modules(model)
        for place, tensor in _tensors(module)
        if tensor.grad_fn is not None
    }


def _own_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Go over the modules whose class is not one of PyTorch's."""
    for name, module in model.named_modules():
        if not type(module).__module__.startswith("torch."):
            yield name, module


def _tensors(module: nn.Module) -> list[tuple[tuple[str, Any], Tensor]]:
    """Return the tensors that a module holds beside parameters and ordinary buffers, and where."""
    found = []
    for name, value in attributes(module).items():
        if isinstance(value, dict):
            found += [((name, k), v) for k, v in value.items() if isinstance(v, Tensor)]
        elif isinstance(value, list):
            found += [((name, i), v) for i, v in enumerate(value) if isinstance(v, Tensor)]
        elif isinstance(value, Tensor):
            found.append(((name, None), value))
    return [(place, v) for place, v in found if place[0] != "_buffers" or v.grad_fn is not None]


def _direct(module: nn.Module) -> set[Tensor]:
    return {p for p in module._parameters.values() if p is not None}


def _trained(modules: Collection[str]) -> Way:
    return Way(tuple((name, "training") for name in modules))


def _emptied(model: nn.Module, modules: Collection[str]) -> list[Way]:
    held = {
        (name, attribute)
        for name in modules
        for (attribute, _), _ in _tensors(model.get_submodule(name))
    }
    return [Way(tuple(held)), Way(tuple(held), absent=True)]


def _refreshed(
    forward: Forward, model: nn.Module, image: Tensor, unseen: set[Tensor], seen: Tensor
) -> str | None:
    """Look whether parameters act once `train` and `eval` were called, on a copy of the network.

    Returns:
        None if they do not; else what to add to the message: nothing, or that what is kept does
        not fit the parameters any more.
    """
    if not unseen or any(acting(partial(forward, model), [list(unseen)], image)):
        return None  # not by what is kept, then
    modes = [module.training for module in model.modules()]
    places = [i for i, p in enumerate(model.parameters()) if p in unseen]

    def outputs(change: bool) -> Tensor:
        twin = copy.deepcopy(model)
        twin.train()
        theirs = list(twin.parameters())
        with torch.no_grad(), shifted([theirs[i] for i in places] if change else []):
            twin.eval()
            for module, mode in zip(twin.modules(), modes):
                module.training = mode
            return forward(twin, image)

    try:
        before, after = outputs(False), outputs(True)
    except Exception as fault:  # a network may hold anything, and be of one mode
        if isinstance(fault, RuntimeError) and out_of_memory(fault):
            raise
        return None
    if not differ(before, after, partial(outputs, False)):
        return None
    fits = close(before, seen.detach())
    return "" if fits else " that no longer fit them (call model.train() and model.eval())"
