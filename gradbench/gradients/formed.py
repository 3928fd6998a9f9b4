"""Parameters that act in several calls, or through tensors made of them: gradients are formed.

Each call gives the gradients with respect to what entered it, (B, ...), and those of the parameters
are one backward pass through the graph between them, which holds no images and is small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradbench.gradients.recorder import Entry
from gradbench.gradients.rules.base import blocks

Part = Callable[[slice], Tensor]
"""Gradients with respect to one entry, of a block of images."""


@dataclass(eq=False)
class Group:
    """Parameters whose gradients can only be told together, and the entries that they act through.

    Args:
        parameters: of the group.
        entries: entry -> its part, once that is known.
    """

    parameters: list[Tensor]
    entries: dict[Entry, Part | None] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether the backward pass has met every entry."""
        return None not in self.entries.values()

    def gradients(self, images: int) -> Iterable[tuple[slice, list[Tensor]]]:
        """Yield blocks of images and the gradients of every parameter, (b, *shape) each."""
        parts = [(e.source.tensor, part) for e, part in self.entries.items() if part is not None]
        if not parts:
            return
        ends = [tensor for tensor, _ in parts]
        size = sum(tensor.numel() for tensor in (*ends, *self.parameters))
        for block in blocks(images, size, self.parameters[0].device):
            yield block, pulled_back(ends, [part(block) for _, part in parts], self.parameters)


def groups(entries: Iterable[Entry], parameters: Iterable[Tensor]) -> list[Group]:
    """Return the groups of the parameters whose gradients must be formed.

    A parameter is in none where it enters one call alone, as itself or in another shape.

    Args:
        entries: all through which the parameters act.
        parameters: those that are wanted.
    """
    wanted = frozenset(parameters)
    of: dict[Tensor, Group] = {}
    for entry in entries:
        merged = Group([], {})
        for parameter in entry.source.parameters & wanted:
            group = of.get(parameter)
            if group is None:
                merged.parameters.append(parameter)
            elif group is not merged:
                merged.parameters += group.parameters
                merged.entries |= group.entries
            of.update(dict.fromkeys(merged.parameters, merged))
        merged.entries[entry] = None
    whole = {id(group): group for group in of.values()}.values()
    return [g for g in whole if len(g.entries) > 1 or next(iter(g.entries)).source.steps is None]


def pulled_back(
    ends: Sequence[Tensor], gradients: Sequence[Tensor], parameters: Sequence[Tensor]
) -> list[Tensor]:
    """Return the gradients of parameters from those of tensors that are made of them.

    Args:
        ends: tensors with a graph, or parameters.
        gradients: with respect to each of them, images first.
        parameters: what is wanted.
    """

    def back(given: Sequence[Tensor], batched: bool) -> Sequence[Tensor]:
        return torch.autograd.grad(
            ends, parameters, given, True, is_grads_batched=batched, materialize_grads=True
        )

    images = len(gradients[0])
    if images > 1:
        try:
            return list(back(gradients, True))
        except RuntimeError:  # not every function can be batched: in-place changes cannot
            pass
    rows = [back([g[i] for g in gradients], False) for i in range(images)]
    if images == 1:  # large ones come one at a time, and are not copied
        return [value[None] for value in rows[0]]
    return [torch.stack(values) for values in zip(*rows)]
