"""Tensors of any layout in a safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike

import torch
from safetensors.torch import save_file
from torch import Tensor


def save_tensors(
    tensors: Mapping[str, Tensor],
    path: str | PathLike,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write tensors to a safetensors file, which takes none that share memory or have gaps.

    Args:
        tensors: dense, on any device, by name; views and overlapping ones are written in full.
        path: of the file.
        metadata: texts by name.
        dtype: that floating-point tensors are stored as; None leaves them as they are.
    """
    kept: dict[str, Tensor] = {}
    memories: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach()
        if dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(dtype)
        tensor = tensor.cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in memories:
            tensor = tensor.clone()
        memories.add(tensor.untyped_storage().data_ptr())
        kept[name] = tensor
    save_file(kept, str(path), metadata=metadata)
