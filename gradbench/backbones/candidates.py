"""Finds the weights of a network in what a file holds: nested containers, prefixes, averages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

ORDINARY = (
    *("state_dict", "model", "net", "model_state_dict", "params", "weights", "network"),
    *("backbone", "module", "_orig_mod", "model_state", "net_state_dict"),
)
"""Containers and prefixes under which people keep a network, the likelier first."""

AVERAGED = re.compile(r"(^|_)(ema|swa|avg|averaged?|mean|shadow|teacher|momentum|target)(_|$)")
"""What names weights averaged over training or another network than the one that was trained."""

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
"""Modules that torch or Lightning puts around any part of a network; `module` may be another."""

COUNTER = "num_batches_tracked"
"""Of batch norm: older files lack it, and no pass in evaluation mode reads it."""

COUNTERS = (COUNTER, "n_averaged", "total_ops", "total_params")
"""Counters that may be left over: of batch norm, of averaging and of thop."""

DEPTH = 6
"""Containers in each other that are looked into."""


@dataclass(frozen=True)
class Names:
    """The names of a network's tensors.

    Attributes:
        first: each name and the first name of the same tensor.
        needless: names of buffers that the network makes itself and may be left over.
    """

    first: Mapping[str, str]
    needless: frozenset[str] = frozenset()

    def missing(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Return the names that tensors lack; one of several names of a tensor is enough."""
        there = {self.first.get(name) for name in tensors}
        needed = (n for n, first in self.first.items() if n == first and first not in there)
        return [name for name in needed if _last(name) != COUNTER]

    def left_over(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Return the names of tensors that the network has no place for."""
        known = self.first.keys() | self.needless
        return [n for n in tensors if n not in known and _last(n) not in COUNTERS]


@dataclass
class Fit:
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
    def whole(self) -> bool:
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


def fits(content: Any, names: Names) -> list[Fit]:
    """Return the sets of tensors in a file beside their names in a network, best first.

    Of one container and prefix there is one, with the wrappers stripped where that fits better.

    Args:
        content: of the file.
        names: of the network.
    """
    sets, found = list(_sets(content)), []
    ends = set(map(_last, names.first))
    related = [held for held in sets if not ends.isdisjoint(map(_last, held[1]))]
    for path, tensors in related or sorted(sets, key=lambda held: len(held[1]))[-1:]:
        tries = [tensors, *_unwrapped(tensors)]
        tried = [fit for each in tries for fit in _prefixed(path, each, names)]
        best: dict[str, Fit] = {}
        for fit in sorted(tried, key=_misfit):
            best.setdefault(fit.place, fit)
        whole = [f for f in best.values() if f.whole]
        # a prefix of any other name is taken only if everything lies under such prefixes
        rest = set.intersection(*(set(f.beside) for f in whole)) if whole else set()
        kept = [f for f in whole if f.rank[0] != 1 or not rest]
        kept.sort(key=lambda fit: len(fit.prefix), reverse=True)  # of the same the shortest
        found_here = {frozenset(map(id, fit.tensors.values())): fit for fit in kept}
        parts = (fit for fit in best.values() if not fit.whole)
        found += found_here.values() or [min(parts, key=_misfit)]
    return sorted(found, key=lambda f: (not f.whole, f.rank if f.whole else _misfit(f)))


def _misfit(fit: Fit) -> tuple[bool, int, int]:
    # a block of any network has names in common with a block of another
    part = fit.rank[0] == 1 and bool(fit.prefix) and len(fit.missing) > len(fit.tensors)
    return part, len(fit.missing), len(fit.left_over)


def _sets(content: Any) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Yield (names of the containers, tensors by name) of every container that holds tensors."""
    seen, waiting = set(), [((), content)]
    while waiting:
        path, held = waiting.pop(0)
        if id(held) in seen or len(path) > DEPTH:
            continue
        seen.add(id(held))
        if isinstance(held, dict):  # its own methods may be hidden by what the file set
            inside = [(str(name), value) for name, value in dict.items(held)]
        elif isinstance(held, (list, tuple)):
            inside = [(str(i), value) for i, value in enumerate(held[:100])]
        else:
            continue
        tensors = {name: value for name, value in inside if isinstance(value, Tensor)}
        if tensors and isinstance(held, dict):
            yield path, tensors
        waiting += [((*path, name), value) for name, value in inside]


def _unwrapped(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield the tensors with the names of wrappers taken out, wherever they stand."""
    for wrappers in (WRAPPERS, (*WRAPPERS, "module")):
        bare = {
            ".".join(part for part in name.split(".") if part not in wrappers): tensor
            for name, tensor in tensors.items()
        }
        if len(bare) == len(tensors) and bare.keys() != tensors.keys():
            yield bare


def _prefixed(path: tuple[str, ...], tensors: dict[str, Tensor], names: Names) -> Iterator[Fit]:
    """Yield the tensors as they stand, under every prefix of theirs, and under the network's."""
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
        yield _fit(path, prefix, inside, names, beside)
    own = {name.partition(".")[0] for name in names.first}
    if len(own) == 1 and own < {*ORDINARY}:
        (word,) = own
        yield _fit(path, "", {f"{word}.{n}": t for n, t in tensors.items()}, names, [])


def _fit(path, prefix, tensors, names: Names, beside) -> Fit:
    return Fit(path, prefix, tensors, names.missing(tensors), names.left_over(tensors), beside)


def _last(name: str) -> str:
    return name.rpartition(".")[2]
