"""Tensors of a network that have several names (tied weights), or share memory with others."""

from __future__ import annotations

import copy
from collections import defaultdict
from itertools import combinations

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
    ranges = []
    for name, tensor in (*network.named_buffers(), *network.named_parameters()):
        if tensor.numel():
            begin = tensor.data_ptr()
            reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride()))
            end = begin + (reach + 1) * tensor.element_size()
            ranges.append((begin, end, name, isinstance(tensor, nn.Parameter)))
            if ranges[-1][-1] and tensor.numel() > reach + 1:
                raise GradbenchError(
                    f"the backbone's parameter {name} is an expanded tensor, whose numbers share "
                    "memory, and cannot be trained: make it with contiguous()"
                )
    for (begin, end, name, trained), (low, high, other, other_trained) in combinations(ranges, 2):
        if begin < high and low < end and (trained or other_trained):
            raise GradbenchError(
                f"the backbone's {name} and {other} share memory and are two tensors, which cannot "
                "be trained: assign one parameter or module to both names to tie them, or make one "
                "with clone()"
            )
