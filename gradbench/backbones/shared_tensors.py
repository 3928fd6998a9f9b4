"""Tensors of a network that have several names (tied weights), or share memory with others."""

from __future__ import annotations

import copy
from collections import defaultdict
from itertools import combinations

import torch
from torch import Tensor, nn

from gradbench.errors import GradbenchError


def first_names(network: nn.Module) -> dict[str, str]:
    """Return, for each name in a network's state, the first name of the same tensor (tied weights).

    >>> layer = nn.Linear(2, 2)
    >>> first_names(nn.Sequential(layer, layer))["1.weight"]
    '0.weight'
    """
    first: dict[int, str] = {}
    state = network.state_dict(keep_vars=True)
    return {name: first.setdefault(id(tensor), name) for name, tensor in state.items()}


def unique_state(network: nn.Module) -> dict[str, Tensor]:
    """Return a network's state dict with each tensor once, under its first name."""
    first, state = first_names(network), network.state_dict()
    return {name: tensor for name, tensor in state.items() if first[name] == name}


def move_network(network: nn.Module, *args, **kwargs) -> None:
    """Call `network.to(...)`; shared buffers stay one tensor, as shared parameters do."""
    owners = defaultdict(list)
    for module in network.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                owners[id(buffer)].append((module, name))
    network.to(*args, **kwargs)
    for (module, name), *others in owners.values():
        for other, other_name in others:
            other._buffers[other_name] = module._buffers[name]


def copy_network(network: nn.Module) -> nn.Module:
    """Return a deep copy, in which weights computed from parameters (weight_norm) are values alone.

    Python's own deepcopy refuses such tensors.
    """
    attributes = (value for module in network.modules() for value in vars(module).values())
    computed = (t for t in attributes if isinstance(t, Tensor) and t.grad_fn is not None)
    return copy.deepcopy(network, {id(t): t.detach().clone() for t in computed})


def check_separate(network: nn.Module) -> None:
    """Raise a GradbenchError if a step on one parameter would change another tensor.

    Such sharing is lost wherever a network is copied or moved to a device, so what training makes
    of it would depend on that. One parameter with two names is sound.
    """
    tensors = {id(t): (n, t) for n, t in network.named_buffers()}
    tensors |= {id(p): (n, p) for n, p in network.named_parameters()}
    memories = defaultdict(list)
    for name, tensor in tensors.values():
        if tensor.numel():
            memories[tensor.untyped_storage().data_ptr()].append((name, tensor))
            if isinstance(tensor, nn.Parameter) and _is_expanded(tensor):
                raise GradbenchError(
                    f"the backbone's parameter {name} is an expanded tensor, whose numbers share "
                    "memory, and cannot be trained: make it with contiguous()"
                )
    for neighbours in memories.values():
        for (name, tensor), (other_name, other) in combinations(neighbours, 2):
            if any(isinstance(t, nn.Parameter) for t in (tensor, other)) and _overlap(
                tensor, other
            ):
                raise GradbenchError(
                    f"the backbone's {name} and {other_name} share memory and are two tensors, "
                    "which cannot be trained: assign one parameter or module to both names to tie "
                    "them, or make one with clone()"
                )


def unshare_expanded_buffers(network: nn.Module) -> None:
    """Give expanded buffers memory for each of their numbers, so that they can be loaded."""
    for module in network.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and _is_expanded(buffer):
                module._buffers[name] = buffer.contiguous()


def _is_expanded(tensor: Tensor) -> bool:
    if tensor.layout != torch.strided:
        return False
    return any(stride == 0 and n > 1 for stride, n in zip(tensor.stride(), tensor.shape))


def _overlap(first: Tensor, second: Tensor) -> bool:
    """Tell whether two tensors of one memory have a number in common."""
    if first.dtype != second.dtype:
        return True
    used = torch.zeros(first.untyped_storage().nbytes() // first.element_size(), dtype=torch.bool)
    views = [(t.shape, t.stride(), t.storage_offset()) for t in (first, second)]
    used.as_strided(*views[0]).fill_(True)
    return bool(used.as_strided(*views[1]).any())
