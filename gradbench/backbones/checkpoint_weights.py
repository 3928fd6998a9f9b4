"""The weights of a network among what a checkpoint file holds.

People keep weights in nested containers, under prefixes, with averages beside them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradbench.backbones.shared_tensors import first_names

ORDINARY = (
    *("state_dict", "model", "net", "model_state_dict", "params", "weights", "network"),
    *("backbone", "module", "_orig_mod", "model_state", "net_state_dict"),
)
"""Containers and prefixes under which people keep a network, the likelier first."""

AVERAGED = re.compile(r"(^|_)(ema|swa|avg|averaged?|mean|shadow|teacher|momentum|target)(_|$)")
"""Words for weights averaged over training, or of another network than the trained one."""

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
"""Modules that torch or Lightning puts around any part of a network; `module` may be another."""

BATCH_COUNTER = "num_batches_tracked"
"""Of batch norm: older files lack it, and no pass in evaluation mode reads it."""

COUNTERS = (BATCH_COUNTER, "n_averaged", "total_ops", "total_params")
"""Counters that may be left over: of batch norm, of averaging and of thop."""


class TensorNames:
    """The names of a network's tensors: what a file must have, and what it may have besides."""

    def __init__(self, network: nn.Module):
        self.first = first_names(network)
        buffers = network.named_buffers(remove_duplicate=False)
        self.unsaved = {name: buffer for name, buffer in buffers if name not in self.first}
        """Buffers that the network makes itself, such as a table of positions."""

    def missing(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Return the names that tensors lack; one of several names of a tensor is enough."""
        present = {self.first.get(name) for name in tensors}
        needed = (n for n, first in self.first.items() if n == first and first not in present)
        return [name for name in needed if _last(name) != BATCH_COUNTER]

    def left_over(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Return the names of tensors that the network has no place for, or makes otherwise."""
        return [
            name
            for name, tensor in tensors.items()
            if name not in self.first
            and _last(name) not in COUNTERS
            and not (name in self.unsaved and same_numbers(tensor, self.unsaved[name].cpu()))
        ]


@dataclass
class Candidate:
    """Tensors of a file under names of the network, as far as they are its own.

    `place` names containers and prefix, `beside` tensors of the same container without the prefix.
    """

    place: str
    rank: tuple[int, ...]
    tensors: dict[str, Tensor]
    missing: list[str]
    left_over: list[str]
    beside: list[str]

    @property
    def complete(self) -> bool:
        """Whether these are the network's weights."""
        return not self.missing and not self.left_over

    def adds_nothing_to(self, other: Candidate) -> bool:
        """Tell whether the other has all of these tensors."""
        return all(
            name in other.tensors and same_numbers(tensor, other.tensors[name])
            for name, tensor in self.tensors.items()
        )


def find_candidates(content: Any, names: TensorNames) -> list[Candidate]:
    """Return one set of tensors of each container in a file, best first.

    Under a prefix of no ordinary name they are taken only if nothing lies beside it: a part of
    another network may have the same names.
    """
    containers, candidates = list(_containers(content)), []
    # of an optimiser every parameter has a container, which would take long
    ends = set(map(_last, names.first))
    related = [each for each in containers if not ends.isdisjoint(map(_last, each[1]))]
    for path, tensors in related or containers:
        views = []
        for prefix, inside, beside in _views(tensors, names):
            rank = _rank([*path, *prefix.split(".")[:-1]])
            missing, left_over = names.missing(inside), names.left_over(inside)
            place = ".".join((*path, prefix) if prefix else path)
            if not (prefix and rank[0] and beside):
                views.append(Candidate(place, rank, inside, missing, left_over, beside))
        candidates.append(min(views, key=lambda view: (_order(view), len(view.place))))
    return sorted(candidates, key=_order)


def _order(candidate: Candidate) -> tuple:
    if candidate.complete:
        return False, candidate.rank
    return True, len(candidate.missing), len(candidate.left_over)


def _rank(words: list[str]) -> tuple[int, ...]:
    """Return how far from ordinary a place is: 0, unknown 1, averaged 2; then by its words."""
    if any(AVERAGED.search(word.lower()) for word in words):
        return (2,)
    ordinary = (*ORDINARY, *WRAPPERS)
    return (0, *map(ordinary.index, words)) if set(words) <= set(ordinary) else (1,)


def _containers(content: Any) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Yield (names of the containers, tensors by name) of every dictionary that holds tensors."""
    visited, waiting = set(), [((), content)]
    for path, held in waiting:  # which grows meanwhile
        if id(held) in visited:
            continue
        visited.add(id(held))
        # dict.items: a file may have hidden the method of its own dictionary
        pairs = dict.items(held) if isinstance(held, dict) else enumerate(held)
        entries = [(str(name), value) for name, value in pairs]
        tensors = {name: value for name, value in entries if isinstance(value, Tensor)}
        if tensors and isinstance(held, dict):
            yield path, tensors
        waiting += [((*path, n), v) for n, v in entries if isinstance(v, dict | list | tuple)]


def _views(
    tensors: dict[str, Tensor], names: TensorNames
) -> Iterator[tuple[str, dict[str, Tensor], list[str]]]:
    """Yield (prefix, tensors under it, names beside it): all that could be the network's names."""
    for wrappers in ((), WRAPPERS, (*WRAPPERS, "module")):
        bare = {
            ".".join(part for part in name.split(".") if part not in wrappers): tensor
            for name, tensor in tensors.items()
        }
        if len(bare) < len(tensors):
            continue
        prefixes: Counter[str] = Counter()
        for name in bare:
            parts = name.split(".")
            for i in range(1, len(parts)):
                if ".".join(parts[i:]) in names.first:
                    prefixes[".".join(parts[:i]) + "."] += 1
        for prefix in ("", *(p for p, _ in prefixes.most_common(20))):
            inside = {n.removeprefix(prefix): t for n, t in bare.items() if n.startswith(prefix)}
            beside = [n for n in bare if not n.startswith(prefix) and _last(n) not in COUNTERS]
            yield prefix, inside, beside
        outer = {name.partition(".")[0] for name in names.first}
        if len(outer) == 1:  # the network is a module around the one whose weights these are
            (own,) = outer
            yield "", {f"{own}.{name}": tensor for name, tensor in bare.items()}, []


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def same_numbers(first: Tensor, second: Tensor) -> bool:
    """Tell whether two tensors are equal; False for kinds without numbers to compare."""
    try:
        return first is second or torch.equal(first, second)
    except RuntimeError:
        return False
