"""Tensors of a file made plain numbers of the types and shapes of a network's own, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gradbench.errors import GradbenchError


def brought(
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    about: Mapping[str, Any],
    source: str,
) -> dict[str, Tensor]:
    """Return tensors dense and in the types of a network's own.

    Args:
        tensors: of a file.
        own: of the network, at least under the same names.
        about: the file's description.
        source: how messages begin.

    Raises:
        GradbenchError: if they have no numbers, numbers of another kind (quantised, packed), other
            shapes, or are not finite where the network's own are.
    """
    _check_kinds(tensors, source)
    _check_shapes(tensors, own, about, source)
    return {name: _as(own[name], tensor, name, source) for name, tensor in tensors.items()}


def _check_kinds(tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuse tensors that are no plain numbers."""
    for name, tensor in tensors.items():
        what = ""
        if tensor.is_meta:
            what = "a shape without numbers (a meta tensor): save the network with its weights"
        elif tensor.is_quantized:
            what = f"quantised numbers ({tensor.dtype}): save the network before it is quantised"
        elif tensor.is_nested:
            what = "a nested tensor: save plain ones"
        if what:
            raise GradbenchError(f"{source} holds in {name} {what}")


def _check_shapes(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], about, source: str
) -> None:
    different = [n for n in own if n in tensors and tensors[n].shape != own[n].shape]
    # torch before 0.4 had no tensors without dimensions
    different = [n for n in different if own[n].dim() or tensors[n].shape != (1,)]
    if not different:
        return
    name = different[0]
    layers = {n.rpartition(".")[0] for n in different}
    counts = {(tensors[n].shape[:1], own[n].shape[:1]) for n in different}
    rest_same = all(tensors[n].shape[1:] == own[n].shape[1:] for n in different)
    if len(layers) == len(counts) == 1 and rest_same and tensors[name].dim() and own[name].dim():
        # of a layer that others follow they would differ, too
        raise GradbenchError(
            f"{source} has {tensors[name].shape[0]} classes, the data set has {own[name].shape[0]}"
        )
    network = about.get("network")
    made = network.get("arguments") if isinstance(network, dict) else None
    made = made if isinstance(made, dict) else {}
    given = ", ".join(f"{key}={value}" for key, value in sorted(made.items()))
    hint = "look at the settings of the backbone and at the data set's channels"
    hint = f"it was made with {given}" if given else hint
    raise GradbenchError(
        f"{source}: {name} has shape {tuple(tensors[name].shape)}, the "
        f"configured network {tuple(own[name].shape)}; {hint}"
    )


def _as(own: Tensor, tensor: Tensor, name: str, source: str) -> Tensor:
    """Return a tensor dense and of the type of the network's own.

    Raises:
        GradbenchError: if it cannot be one of that type, or is not finite where that is.
    """
    tensor = tensor.detach().reshape(own.shape) if tensor.layout == torch.strided else tensor
    tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor
    fractions = own.is_floating_point() or own.is_complex()
    wrong = fractions and not (tensor.is_floating_point() or tensor.is_complex())
    if wrong or (tensor.is_complex() and not own.is_complex()):
        raise GradbenchError(
            f"{source} holds {_type(tensor)} numbers in {name}, the configured "
            f"network {_type(own)}"
            + (": weights that were quantised or packed lack the scale to go on" if wrong else "")
        )
    given = tensor.to(own.dtype)
    bad = ~torch.isfinite(given)
    if bad.any() and not torch.equal(given[bad], own.detach().cpu()[bad]):  # a mask of -inf is fine
        raise GradbenchError(f"{source} holds NaN or infinity in {name}")
    return given


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
