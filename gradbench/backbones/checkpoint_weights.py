"""The weights of a network among what a checkpoint file holds, found and made of its types.

People keep weights in nested containers, under prefixes, with averages beside them, in other
precisions and layouts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gradbench.errors import GradbenchError

ORDINARY = (
    *("state_dict", "model", "net", "model_state_dict", "params", "weights", "network"),
    *("backbone", "module", "_orig_mod", "model_state", "net_state_dict"),
)
"""Containers and prefixes under which people keep a network, the likelier first."""

AVERAGED = re.compile(r"(^|_)(ema|swa|avg|averaged?|mean|shadow|teacher|momentum|target)(_|$)")
"""What names weights averaged over training or another network than the one that was trained."""

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
"""Modules that torch or Lightning puts around any part of a network; `module` may be another."""

BATCH_COUNTER = "num_batches_tracked"
"""Of batch norm: older files lack it, and no pass in evaluation mode reads it."""

COUNTERS = (BATCH_COUNTER, "n_averaged", "total_ops", "total_params")
"""Counters that may be left over: of batch norm, of averaging and of thop."""

MAX_DEPTH = 6
"""Containers in each other that are looked into."""


@dataclass(frozen=True)
class TensorNames:
    """The names of a network's tensors.

    Attributes:
        first: each name and the first name of the same tensor.
        optional: names of buffers that the network makes itself and that may be left over.
    """

    first: Mapping[str, str]
    optional: frozenset[str] = frozenset()

    def missing(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Return the names that tensors lack; one of several names of a tensor is enough."""
        present = {self.first.get(name) for name in tensors}
        needed = (n for n, first in self.first.items() if n == first and first not in present)
        return [name for name in needed if _last(name) != BATCH_COUNTER]

    def left_over(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Return the names of tensors that the network has no place for."""
        known = self.first.keys() | self.optional
        return [n for n in tensors if n not in known and _last(n) not in COUNTERS]


@dataclass
class Candidate:
    """Tensors of a file under names of the network, as far as they are its own.

    Attributes:
        path: names of the containers, from the outermost.
        prefix: of its names in the container, with the last dot; empty without one.
        tensors: by name, prefix and wrappers stripped.
        missing: names that the network has and they lack.
        left_over: names that they have and the network lacks.
        beside: names of tensors of the same container without the prefix.
    """

    path: tuple[str, ...]
    prefix: str
    tensors: dict[str, Tensor]
    missing: list[str]
    left_over: list[str]
    beside: list[str] = field(default_factory=list)

    @property
    def place(self) -> str:
        """Containers and prefix as one text; empty where the file is nothing else."""
        return ".".join((*self.path, self.prefix)) if self.prefix else ".".join(self.path)

    @property
    def complete(self) -> bool:
        """Whether these are the network's weights."""
        return not self.missing and not self.left_over

    @property
    def rank(self) -> tuple[int, ...]:
        """How far from ordinary the place is: 0, unknown 1, averaged 2; then by its words."""
        words = (*self.path, *self.prefix.split(".")[:-1])
        if any(AVERAGED.search(word.lower()) for word in words):
            return (2,)
        if not set(words) <= {*ORDINARY, *WRAPPERS}:
            return (1,)
        return 0, *map((*ORDINARY, *WRAPPERS).index, words)

    @property
    def mismatch(self) -> tuple[bool, int, int]:
        """How far these are from being the network's weights, for sorting."""
        # a block of any network has names in common with a block of another
        block = self.rank[0] == 1 and bool(self.prefix) and len(self.missing) > len(self.tensors)
        return block, len(self.missing), len(self.left_over)

    def adds_nothing_to(self, other: Candidate) -> bool:
        """Tell whether the other has all of these tensors."""
        return all(
            name in other.tensors and _equal(tensor, other.tensors[name])
            for name, tensor in self.tensors.items()
        )


def find_candidates(content: Any, names: TensorNames) -> list[Candidate]:
    """Return the sets of tensors in a file beside their names in a network, best first.

    Of one container and prefix there is one, with the wrappers stripped where that fits better.

    Args:
        content: of the file.
        names: of the network.
    """
    containers, found = list(_containers(content)), []
    ends = set(map(_last, names.first))
    related = [held for held in containers if not ends.isdisjoint(map(_last, held[1]))]
    for path, tensors in related or sorted(containers, key=lambda held: len(held[1]))[-1:]:
        variants = [tensors, *_unwrapped(tensors)]
        tried = [each for variant in variants for each in _with_prefixes(path, variant, names)]
        best: dict[str, Candidate] = {}
        for candidate in sorted(tried, key=lambda c: c.mismatch):
            best.setdefault(candidate.place, candidate)
        complete = [c for c in best.values() if c.complete]
        # a prefix of any other name is taken only if everything lies under such prefixes
        rest = set.intersection(*(set(c.beside) for c in complete)) if complete else set()
        kept = [c for c in complete if c.rank[0] != 1 or not rest]
        kept.sort(key=lambda c: len(c.prefix), reverse=True)  # of the same tensors the shortest
        distinct = {frozenset(map(id, c.tensors.values())): c for c in kept}
        incomplete = (c for c in best.values() if not c.complete)
        found += distinct.values() or [min(incomplete, key=lambda c: c.mismatch)]
    return sorted(found, key=lambda c: (not c.complete, c.rank if c.complete else c.mismatch))


def _containers(content: Any) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Yield (names of the containers, tensors by name) of every container that holds tensors."""
    visited, waiting = set(), [((), content)]
    while waiting:
        path, held = waiting.pop(0)
        if id(held) in visited or len(path) > MAX_DEPTH:
            continue
        visited.add(id(held))
        if isinstance(held, dict):  # its own methods may be hidden by what the file set
            entries = [(str(name), value) for name, value in dict.items(held)]
        elif isinstance(held, (list, tuple)):
            entries = [(str(i), value) for i, value in enumerate(held[:100])]
        else:
            continue
        tensors = {name: value for name, value in entries if isinstance(value, Tensor)}
        if tensors and isinstance(held, dict):
            yield path, tensors
        waiting += [((*path, name), value) for name, value in entries]


def _unwrapped(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield the tensors with the names of wrappers taken out, wherever they stand."""
    for wrappers in (WRAPPERS, (*WRAPPERS, "module")):
        bare = {
            ".".join(part for part in name.split(".") if part not in wrappers): tensor
            for name, tensor in tensors.items()
        }
        if len(bare) == len(tensors) and bare.keys() != tensors.keys():
            yield bare


def _with_prefixes(path, tensors: dict[str, Tensor], names: TensorNames) -> Iterator[Candidate]:
    """Yield the tensors as they stand, under every prefix of theirs, and under the network's."""

    def candidate(prefix: str, inside: dict[str, Tensor], beside: list[str]) -> Candidate:
        missing, left_over = names.missing(inside), names.left_over(inside)
        return Candidate(path, prefix, inside, missing, left_over, beside)

    prefixes: Counter[str] = Counter()
    for name in tensors:
        parts = name.split(".")
        prefixes.update(
            f"{'.'.join(parts[:i])}."
            for i in range(1, len(parts))
            if ".".join(parts[i:]) in names.first
        )
    for prefix in ("", *(p for p, _ in prefixes.most_common(20))):
        inside = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        beside = [n for n in tensors if not n.startswith(prefix) and _last(n) not in COUNTERS]
        yield candidate(prefix, inside, beside)
    own_prefixes = {name.partition(".")[0] for name in names.first}
    if len(own_prefixes) == 1 and own_prefixes < {*ORDINARY}:
        (own,) = own_prefixes
        yield candidate("", {f"{own}.{n}": t for n, t in tensors.items()}, [])


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _equal(first: Tensor, second: Tensor) -> bool:
    try:
        return first is second or torch.equal(first, second)
    except RuntimeError:  # a kind of tensor without numbers to compare
        return False


def convert_tensors(
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    about: Mapping[str, Any],
    source: str,
) -> dict[str, Tensor]:
    """Return tensors of a file as dense ones of the types of a network's own.

    Args:
        tensors: of the file.
        own: of the network, at least under the same names.
        about: the file's description.
        source: how messages begin.

    Raises:
        GradbenchError: if they have no numbers, numbers of another kind (quantised, packed), other
            shapes, or are not finite where the network's own are.
    """
    for name, tensor in tensors.items():
        problem = ""
        if tensor.is_meta:
            problem = "a shape without numbers (a meta tensor): save the network with its weights"
        elif tensor.is_quantized:
            problem = f"quantised numbers ({tensor.dtype}): save the network before it is quantised"
        elif tensor.is_nested:
            problem = "a nested tensor: save plain ones"
        if problem:
            raise GradbenchError(f"{source} holds in {name} {problem}")
    _check_shapes(tensors, own, about, source)
    return {name: _convert(tensor, own[name], name, source) for name, tensor in tensors.items()}


def _check_shapes(tensors, own: Mapping[str, Tensor], about, source: str) -> None:
    different = [n for n in own if n in tensors and tensors[n].shape != own[n].shape]
    # torch before 0.4 had no tensors without dimensions
    different = [n for n in different if own[n].dim() or tensors[n].shape != (1,)]
    if not different:
        return
    name = different[0]
    layers = {n.rpartition(".")[0] for n in different}
    counts = {(tensors[n].shape[:1], own[n].shape[:1]) for n in different}
    rest_same = all(tensors[n].shape[1:] == own[n].shape[1:] for n in different)
    if len(layers) == len(counts) == 1 and rest_same and tensors[name].dim() and own[name].dim():
        # one layer alone, which is the last: the layer after any other one would differ, too
        raise GradbenchError(
            f"{source} has {tensors[name].shape[0]} classes, the data set has {own[name].shape[0]}"
        )
    network = about.get("network")
    arguments = network.get("arguments") if isinstance(network, dict) else None
    arguments = arguments if isinstance(arguments, dict) else {}
    made_with = ", ".join(f"{key}={value}" for key, value in sorted(arguments.items()))
    hint = "look at the settings of the backbone and at the data set's channels"
    hint = f"it was made with {made_with}" if made_with else hint
    raise GradbenchError(
        f"{source}: {name} has shape {tuple(tensors[name].shape)}, the "
        f"configured network {tuple(own[name].shape)}; {hint}"
    )


def _convert(tensor: Tensor, own: Tensor, name: str, source: str) -> Tensor:
    """Return a tensor dense and of the type of the network's own, or refuse it."""
    if tensor.layout == torch.strided:
        tensor = tensor.detach().reshape(own.shape)
    else:
        tensor = tensor.to_dense()
    integers = not (tensor.is_floating_point() or tensor.is_complex())
    packed = integers and (own.is_floating_point() or own.is_complex())
    if packed or (tensor.is_complex() and not own.is_complex()):
        kinds = [str(t.dtype).removeprefix("torch.") for t in (tensor, own)]
        raise GradbenchError(
            f"{source} holds {kinds[0]} numbers in {name}, the configured network {kinds[1]}"
            + (": weights that were quantised or packed lack the scale to go on" if packed else "")
        )
    converted = tensor.to(own.dtype)
    bad = ~torch.isfinite(converted)
    # a mask of -inf that the network has, too, is fine
    if bad.any() and not torch.equal(converted[bad], own.detach().cpu()[bad]):
        raise GradbenchError(f"{source} holds NaN or infinity in {name}")
    return converted
