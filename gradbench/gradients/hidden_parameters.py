"""Parameters that act where autograd does not see it: a gradient of zero must not be a mistake.

A forward under `no_grad`, a `detach`, a decision such as argmax cut the graph; the gradient that is
not seen would read 0. So a parameter that seems to be unused is changed a little: the outputs tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn

from gradbench.errors import GradbenchError
from gradbench.gradients.memory import out_of_memory
from gradbench.gradients.state import only_these_require_grad

SHIFT = 2.0**-5
"""Size of the change, beside the parameter's own: large enough to be seen in half precision."""


def refuse_hidden_parameters(
    forward: Callable[[Tensor], Tensor],
    model: nn.Module,
    parameters: Sequence[Tensor],
    images: Tensor,
) -> None:
    """Refuse parameters that autograd calls unused where a change of them changes the outputs."""
    # All at once first: two passes, whatever their number.
    if not any(changes_outputs(forward, [parameters], images)):
        return
    named = {p: name for name, p in model.named_parameters()}
    singly = changes_outputs(forward, [[p] for p in parameters], images)
    culprits = few(named[p] for p, changes in zip(parameters, singly) if changes)
    raise GradbenchError(
        f"changing {culprits or few(named[p] for p in parameters)} changes the outputs, but "
        "autograd does not see how (a forward under torch.no_grad or inference_mode, a detach, "
        "whole numbers, a decision such as argmax), so the gradient would read 0: choose other "
        "parameters, or let autograd record what these do"
    )


def few(names: Iterable[str], most: int = 4) -> str:
    """Return the first names, and whether there are others."""
    first = list(islice(names, most + 1))
    return ", ".join(first[:most]) + (" and others" if len(first) > most else "")


def refuse_without_graph(
    forward: Callable[[Tensor], Tensor], model: nn.Module, image: Tensor
) -> None:
    """Refuse outputs that autograd does not see made of any parameter, requested or not."""
    with only_these_require_grad(model, list(model.parameters())):
        if forward(image).requires_grad:
            return
    raise GradbenchError(
        "the network's outputs have no autograd graph, so no gradient can be seen: its forward "
        "runs under torch.no_grad or inference_mode, detaches, uses no parameter, or ends in a "
        "decision such as argmax"
    )


def changes_outputs(
    forward: Callable[[Tensor], Tensor], groups: Sequence[Sequence[Tensor]], images: Tensor
) -> Iterator[bool]:
    """Say of each group of tensors whether changing it changes the outputs."""
    with torch.no_grad():
        before = forward(images)
        for group in groups:
            try:
                with shifted(group):
                    after = forward(images)
            except Exception as fault:
                if out_of_memory(fault):
                    raise
                yield True  # the network noticed
            else:
                yield differ(before, after, partial(forward, images))


def differ(before: Tensor, after: Tensor, repeat: Callable[[], Tensor]) -> bool:
    """Whether outputs differ by more than those of a repetition: some devices add in any order."""
    if after.shape != before.shape:
        return True
    if torch.equal(after, before):
        return False
    return not (after - before).abs().max() <= 10 * (repeat() - before).abs().max()


@contextmanager
def shifted(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Change tensors through `data`, which leaves their version counters alone."""
    generator = torch.Generator().manual_seed(0)
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        for tensor in tensors:
            if not tensor.is_floating_point():  # other places keep all values valid, say as indices
                tensor.data.copy_(tensor.data.flatten().roll(1).view_as(tensor))
                continue
            size = tensor.detach().float().square().mean().sqrt()
            noise = torch.randn(tensor.shape, generator=generator).to(tensor)
            tensor.data.add_(noise * torch.where(size > 0, size, 1).to(tensor) * SHIFT)
        torch.clear_autocast_cache()  # it holds copies of weights, and does not look at `data`
        yield
    finally:
        for tensor, content in zip(tensors, before):
            tensor.data.copy_(content)
        torch.clear_autocast_cache()
