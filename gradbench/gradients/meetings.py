"""Functions in which a bare parameter meets the images, and those that only reshape it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gradbench.gradients.readers import Reading
from gradbench.gradients.rules.broadcast import Broadcast


def met(
    kind: str, sign: float, position: int, arguments: Sequence, result: Tensor
) -> Reading | None:
    """Return the reading of a parameter that meets the images by broadcasting.

    Args:
        kind: add, mul or expand.
        sign: of the second argument of a sum.
        position: of the parameter among the arguments.
        arguments: of the function.
        result: of the function.
    """
    bare = arguments[position]
    other = arguments[1 - position] if kind != "expand" else result
    shape = (1,) * (result.ndim - bare.ndim) + tuple(bare.shape)
    if result.ndim < 2 or shape[0] != 1 or getattr(other, "ndim", 0) != result.ndim:
        return None
    return Reading(Broadcast(kind, shape, kind == "mul", sign if position else 1.0), other, bare)


# function -> kind, sign of its second argument, and the arguments that may be a parameter. A
# product in place is not among them: it overwrites the factor that the gradient needs.
MEETINGS: dict[Callable, tuple[str, float, tuple[int, ...]]] = {
    torch.Tensor.expand: ("expand", 1.0, (0,)),
    torch.Tensor.expand_as: ("expand", 1.0, (0,)),
    torch.add: ("add", 1.0, (0, 1)),
    torch.Tensor.add: ("add", 1.0, (0, 1)),
    torch.Tensor.add_: ("add", 1.0, (1,)),
    torch.sub: ("add", -1.0, (0, 1)),
    torch.Tensor.sub: ("add", -1.0, (0, 1)),
    torch.Tensor.sub_: ("add", -1.0, (1,)),
    torch.mul: ("mul", 1.0, (0, 1)),
    torch.Tensor.mul: ("mul", 1.0, (0, 1)),
}

# Functions that give a tensor's elements another shape or order.
RESHAPES: frozenset[Callable] = frozenset(
    [
        *(torch.Tensor.view, torch.Tensor.reshape, torch.reshape, torch.Tensor.view_as),
        *(torch.Tensor.unsqueeze, torch.unsqueeze, torch.Tensor.squeeze, torch.squeeze),
        *(torch.Tensor.flatten, torch.flatten, torch.Tensor.unflatten, torch.unflatten),
        *(torch.Tensor.permute, torch.permute, torch.Tensor.transpose, torch.transpose),
        *(torch.Tensor.t, torch.t, torch.Tensor.T.__get__, torch.Tensor.mT.__get__),
        *(torch.Tensor.movedim, torch.movedim, torch.Tensor.contiguous, torch.Tensor.__getitem__),
    ]
)
