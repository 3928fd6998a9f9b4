"""The stages of a network, worked out from the names of its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from os.path import commonprefix
from typing import NamedTuple

SMALL = 0.06
"""Stages of a smaller share of the tensors are joined with their neighbour."""
MOST = 12
"""More stages than this are not told apart by eye."""


class Stage(NamedTuple):
    """A run of parameter tensors, with the places of its first and last."""

    name: str
    first: int
    last: int


def stages(names: Sequence[str]) -> list[Stage]:
    """Return the stages that parameter names speak of.

    Stages are the outermost modules, or those within where a single one holds nearly everything.
    Small ones next to each other are joined.

    >>> [s.name for s in stages(["net.conv1.weight", "net.bn1.weight", "net.bn1.bias", "net.fc.w"])]
    ['conv1', 'bn1', 'fc']
    >>> stages(["a.0.w", "a.1.w", "b.w"])[0]
    Stage(name='a', first=0, last=1)
    """
    shared = commonprefix([name.split(".") for name in names])
    paths = [name.split(".")[len(shared) :][:-1] or [name] for name in names]
    found = _runs(paths, 1)
    deeper = _runs(paths, 2)
    if max(s.last - s.first + 1 for s in found) > 0.8 * len(names) and len(deeper) <= MOST:
        found = deeper
    return _joined(found, SMALL * len(names))


def _runs(paths: Sequence[Sequence[str]], depth: int) -> list[Stage]:
    runs, first = [], 0
    for key, members in groupby(paths, key=lambda path: tuple(path[:depth])):
        count = len(list(members))
        runs.append(Stage(key[-1], first, first + count - 1))
        first += count
    return runs


def _joined(found: Sequence[Stage], least: float) -> list[Stage]:
    """Join neighbours that are both small; `conv1, bn1` becomes one stage."""
    joined: list[Stage] = []
    for stage in found:
        if joined and all(s.last - s.first + 1 < least for s in (joined[-1], stage)):
            before = joined.pop()
            start = before.name.split(", ")[0]
            stage = Stage(f"{start}, {stage.name}", before.first, stage.last)
        joined.append(stage)
    return joined
