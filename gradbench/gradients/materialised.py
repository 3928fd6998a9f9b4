"""Parameters that act in several calls, or through expressions: their gradients are materialised.

The norm of a sum is not the sum of norms, so the cross terms need the gradients themselves. Each
call gives the gradients with respect to what entered it, (B, ...), and those of the parameters are
one backward pass through the graph between them, which holds no images and is small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gradbench.gradients.recorder import ParameterUse
from gradbench.gradients.rules.base import blocks

Part = Callable[[slice], Tensor]
"""Gradients with respect to one use, of a block of images."""


@dataclass(eq=False)
class Group:
    """Parameters whose gradients are only known together, and the uses through which they act."""

    parameters: list[Tensor]
    parts: dict[ParameterUse, Part | None] = field(default_factory=dict)  # None: not met yet

    def gradients(self, images: int) -> Iterable[tuple[slice, list[Tensor]]]:
        """Yield blocks of images and the gradients of every parameter, (b, *shape) each."""
        parts = [(use.expression.tensor, part) for use, part in self.parts.items() if part]
        if not parts:
            return
        ends = [tensor for tensor, _ in parts]
        # Gradients of all images at once would be what the engine is there to avoid.
        size = sum(tensor.numel() for tensor in (*ends, *self.parameters))
        for block in blocks(images, size, self.parameters[0].device):
            yield block, _pulled_back(ends, [part(block) for _, part in parts], self.parameters)


def grouped(uses: Iterable[ParameterUse], parameters: Iterable[Tensor]) -> list[Group]:
    """Return the groups of the parameters whose gradients must be materialised.

    A parameter is in none where it enters one call alone, as itself or in another shape.
    """
    wanted = frozenset(parameters)
    of: dict[Tensor, Group] = {}
    for use in uses:
        merged = Group([], {})
        for parameter in use.expression.parameters & wanted:
            group = of.get(parameter)
            if group is None:
                merged.parameters.append(parameter)
            elif group is not merged:
                merged.parameters += group.parameters
                merged.parts |= group.parts
            of.update(dict.fromkeys(merged.parameters, merged))
        merged.parts[use] = None
    groups = {id(group): group for group in of.values()}.values()
    return [g for g in groups if len(g.parts) > 1 or next(iter(g.parts)).expression.reshape is None]


def _pulled_back(
    ends: Sequence[Tensor], gradients: Sequence[Tensor], parameters: Sequence[Tensor]
) -> list[Tensor]:
    """Return the gradients of parameters from those of tensors made of them, images first."""

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
