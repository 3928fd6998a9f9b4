"""Tensors of any layout in a safetensors file; gradients in pixels."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike

import torch
from safetensors.torch import save_file
from torch import Tensor

from gradbench.errors import GradbenchError


def save_tensors(
    tensors: Mapping[str, Tensor],
    path: str | PathLike,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write tensors to a safetensors file, which takes none that share memory or have gaps.

    Views and overlapping tensors are written in full; `dtype` is that of floating-point tensors.
    """
    separate: dict[str, Tensor] = {}
    memories: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach()
        if dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(dtype)
        tensor = tensor.cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in memories:
            tensor = tensor.clone()
        memories.add(tensor.untyped_storage().data_ptr())
        separate[name] = tensor
    save_file(separate, str(path), metadata=metadata)


def gradient_in_pixels(values: Tensor, pixels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the gradient of values, each times its weight, in the pixels they were computed from.

    Raises:
        GradbenchError: when autograd does not see how the values depend on the pixels.
    """
    gradient = None
    if values.requires_grad:
        (gradient,) = torch.autograd.grad(values, pixels, weights, allow_unused=True)
    if gradient is None:
        raise GradbenchError(
            "autograd does not see how the network's outputs depend on the pixels: its forward "
            "runs under torch.no_grad or inference_mode, detaches, or ends in a decision such as "
            "argmax"
        )
    return gradient
