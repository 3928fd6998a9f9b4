"""Networks that cache tensors made of their parameters in evaluation mode.

LeViT, EfficientFormer and TinyViT gather attention biases once and keep them: a forward pass
without autograd leaves a copy that no gradient reaches, one with autograd a graph that only one
backward pass can use. Such modules have a `train` of their own, and compute the tensors afresh in
training mode. Where that gives the same outputs, every pass of the engine runs these modules in
training mode; other caches are refused.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
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
from gradbench.gradients.state import attributes, same_attributes, uncompiled

Forward = Callable[[nn.Module, Tensor], Tensor]

# names of modules, whose objects would keep the network alive
_RECOMPUTING: WeakKeyDictionary[nn.Module, tuple[str, ...]] = WeakKeyDictionary()


@contextmanager
def as_written(model: nn.Module) -> Iterator[None]:
    """Run passes of a network uncompiled, and modules that cache tensors in training mode."""
    modules = [model.get_submodule(name) for name in _RECOMPUTING.get(model, ())]
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = True
        with uncompiled():
            yield
    finally:
        for module, mode in zip(modules, modes):
            module.training = mode


def set_recomputing(names: tuple[str, ...], model: nn.Module) -> None:
    """Let the passes of a network run the modules of these names in training mode."""
    _RECOMPUTING[model] = names


def find_recomputing(
    forward: Forward,
    model: nn.Module,
    image: Tensor,
    parameters: Collection[Tensor],
    outputs: Tensor,
) -> tuple[str, ...]:
    """Return the modules that compute cached tensors afresh in training mode, and run them so.

    `outputs` are those of a forward pass of the image with autograd just before, which must be
    repeated where there are such modules; `forward` runs the network, `as_written`, without the
    caller's hooks. Requested parameters that are cached in another manner are refused.
    """
    unseen = {p for p in parameters if p.is_floating_point()} - leaves_of(outputs)
    # A second pass shares the graph of what the first one has kept.
    graphs = {t.grad_fn for _, _, t in _held_tensors(model)} - {None}
    sharing = bool(graphs) and not graphs.isdisjoint(nodes_of(forward(model, image)))
    stale = _stale(forward, model, image, unseen, outputs)
    if not sharing and stale is None:  # else a parameter may act in training mode alone
        return ()
    switches = {n for n, m in model.named_modules() if type(m).train is not nn.Module.train}
    holders = {name for name, _, _ in _held_tensors(model)}
    for modules in (switches & holders, switches):
        names = tuple(sorted(modules))
        found = _outputs_in_training(names, forward, model, image, outputs)
        if found is None or not graphs.isdisjoint(nodes_of(found)):
            continue
        rest = unseen - leaves_of(found)
        if _stale(forward, model, image, rest, outputs) is None:
            set_recomputing(names, model)
            return names
    if stale is not None:
        names = few(name for name, p in model.named_parameters() if p in unseen)
        raise GradbenchError(
            f"in evaluation mode the network keeps tensors made of {names}{stale}, so their "
            "gradients cannot be seen: let it compute them in every pass, or choose other "
            "parameters"
        )
    return ()  # a graph that is shared may last, or the backward pass finds that it does not


def _outputs_in_training(
    names: tuple[str, ...], forward: Forward, model: nn.Module, image: Tensor, outputs: Tensor
) -> Tensor | None:
    """Return the outputs with these modules in training mode, if there are any and the same."""
    set_recomputing(names, model)
    devices = [image.device] if image.device.type == "cuda" else []
    try:
        # A module in training mode may draw random numbers for its dropout: that is no way round.
        with torch.random.fork_rng(devices), refuse_randomness(image.device):
            found = forward(model, image)
        tight = {torch.float64: 1e-10, torch.float32: 1e-5}
        return found if close(found.detach(), outputs.detach(), tight) else None
    except Exception as fault:  # a network may fail in any manner in training mode
        if out_of_memory(fault):
            raise
        return None
    finally:
        set_recomputing((), model)


def _held_tensors(model: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    """Yield module, attribute and tensor of those held beside parameters and plain buffers."""
    for where, module in model.named_modules():
        for name, value in attributes(module).items():
            parts = value.values() if isinstance(value, dict) else value
            for part in parts if isinstance(value, dict | list) else [value]:
                if isinstance(part, Tensor) and (name != "_buffers" or part.grad_fn is not None):
                    yield where, name, part


def _stale(
    forward: Forward, model: nn.Module, image: Tensor, unseen: set[Tensor], outputs: Tensor
) -> str | None:
    """Look whether unseen parameters act once caches are emptied.

    Gives None if they do not; else an addition to the message: nothing, or that the cached tensors
    do not fit the parameters any more.
    """
    if not unseen or any(changes_outputs(partial(forward, model), [list(unseen)], image)):
        return None  # they act, but not by a cache
    modes = [module.training for module in model.modules()]
    places = [i for i, p in enumerate(model.parameters()) if p in unseen]

    def emptied(where: str, name: str, absent: bool, change: bool) -> Tensor:
        with torch.no_grad(), same_attributes(model), shifted(list(unseen) if change else []):
            held: dict[str, Any] = vars(model.get_submodule(where))
            value = held.pop(name)
            if isinstance(value, dict | list):
                held[name] = type(value)()
            elif not absent:
                held[name] = None
            values = forward(model, image)
            # What the pass does not fill again is no cache.
            again = any((where, name) == place[:2] for place in _held_tensors(model))
            return values if again else outputs.detach()

    def switched(change: bool) -> Tensor:
        twin = copy.deepcopy(model)
        twin.train()
        theirs = list(twin.parameters())
        with torch.no_grad(), shifted([theirs[i] for i in places] if change else []):
            twin.eval()
            for module, mode in zip(twin.modules(), modes):
                module.training = mode
            return forward(twin, image)

    # A cache is emptied by `train`, or filled again where the network notices its absence.
    places_held = {(where, name) for where, name, _ in _held_tensors(model) if name != "_buffers"}
    runs = [partial(emptied, *p, absent) for p in sorted(places_held) for absent in (False, True)]
    for run in (switched, *runs):
        try:
            before, after = run(False), run(True)
        except Exception as fault:  # a network may hold anything, and be of one mode
            if out_of_memory(fault):
                raise
            continue
        if differ(before, after, partial(run, False)):
            if close(before, outputs.detach()):
                return ""
            way_out = " (call model.train() and model.eval())" if run is switched else ""
            return f" that no longer fit them{way_out}"
    return None
