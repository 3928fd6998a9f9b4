"""Parameters that autograd calls unused, and outputs without a graph: a zero must not be a mistake.

A forward under `no_grad`, a `detach`, a decision such as argmax cut the graph; the gradient that is
not seen would read 0. So what seems to be unused is changed a little: the outputs tell.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from gradbench.errors import GradbenchError
from gradbench.gradients.memory import out_of_memory
from gradbench.gradients.state import only_these_require_grad

SHIFT = 2.0**-5
"""Size of the change, beside the parameter's own: to be seen in half precision too."""
NAMED = 4
"""So many of the parameters are named."""


def refuse_unseen(
    forward: Callable[[Tensor], Tensor],
    model: nn.Module,
    parameters: Collection[Tensor],
    images: Tensor,
) -> None:
    """Raise when a change of these parameters changes the outputs.

    Args:
        forward: the forward pass.
        model: the network that it runs.
        parameters: those that autograd calls unused.
        images: the images of the pass.

    Raises:
        GradbenchError: naming them.
    """
    if any(acting(forward, [list(parameters)], images)):
        named = {p: name for name, p in model.named_parameters()}
        raise GradbenchError(
            f"changing {_those(forward, named, parameters, images)} changes the outputs, but "
            "autograd does not see how (a forward under torch.no_grad or inference_mode, a detach, "
            "whole numbers, a decision such as argmax), so the gradient would read 0: choose other "
            "parameters, or let autograd record what these do"
        )


def refuse_without_graph(
    forward: Callable[[Tensor], Tensor], model: nn.Module, image: Tensor
) -> None:
    """Raise unless autograd sees the outputs made of some parameter, asked for or not.

    Raises:
        GradbenchError: then.
    """
    with only_these_require_grad(model, list(model.parameters())):
        if forward(image).requires_grad:
            return
    raise GradbenchError(
        "the network's outputs have no autograd graph, so no gradient can be seen: its forward "
        "runs under torch.no_grad or inference_mode, detaches, uses no parameter, or ends in a "
        "decision such as argmax"
    )


def acting(
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
                if isinstance(fault, RuntimeError) and out_of_memory(fault):
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
    kept = [tensor.detach().clone() for tensor in tensors]
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
        for tensor, content in zip(tensors, kept):
            tensor.data.copy_(content)
        torch.clear_autocast_cache()


def _those(
    forward: Callable[[Tensor], Tensor],
    named: dict[Tensor, str],
    parameters: Collection[Tensor],
    images: Tensor,
) -> str:
    """Name the first of the parameters that act by themselves."""
    names = []
    for p, acts in zip(parameters, acting(forward, [[p] for p in parameters], images)):
        if len(names) == NAMED:
            return f"{', '.join(names)} and others"
        names += [named[p]] if acts else []
    return ", ".join(names or (named[p] for p in parameters))
