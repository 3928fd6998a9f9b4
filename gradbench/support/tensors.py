"""Tensors in a safetensors file: each written once, under all its names when read again."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor


def save_tensors(
    tensors: Mapping[str, Tensor],
    path: str | PathLike,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write tensors of any device, layout in memory and overlap to a safetensors file.

    A tensor with several names (tied weights) is written under the first; the metadata says
    `{other name: first name}`, as `safetensors.torch.save_model` has it.

    Args:
        tensors: dense, by name.
        path: of the file.
        metadata: further texts by name.
        dtype: that floating-point tensors are stored as; None leaves them as they are.
    """
    kept: dict[str, Tensor] = {}
    first: dict[tuple, str] = {}
    other: dict[str, str] = {}
    memories: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach()
        place = (
            *(tensor.device, tensor.untyped_storage().data_ptr(), tensor.storage_offset()),
            *(tensor.dtype, tensor.shape, tensor.stride()),
        )
        if tensor.numel() and first.setdefault(place, name) != name:
            other[name] = first[place]
            continue
        if dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(dtype)
        tensor = tensor.cpu().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        if memory in memories:  # safetensors refuses what overlaps
            tensor = tensor.clone()
        memories.add(memory)
        kept[name] = tensor
    save_file(kept, str(path), metadata={**other, **(metadata or {})} or None)


def load_tensors(path: str | PathLike) -> dict[str, Tensor]:
    """Return the tensors of a file that `save_tensors` wrote, under all their names."""
    return load_described(path)[0]


def load_described(path: str | PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file under all their names, and its metadata."""
    with safe_open(str(path), framework="pt") as stream:
        metadata = stream.metadata() or {}
    tensors = load_file(str(path))
    others = {n: of for n, of in metadata.items() if n not in tensors and of in tensors}
    return tensors | {name: tensors[of] for name, of in others.items()}, metadata
