"""Networks on disk: safetensors with a JSON description, nothing that executes on loading."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gradbench.errors import GradbenchError


def save(path: Path, network: nn.Module, about: Mapping[str, Any], dtype=None) -> None:
    """Write a network's state dict and a JSON-able description to one safetensors file.

    Floating-point tensors are stored as `dtype` where one is given (bfloat16 halves the size).
    """
    tensors = {}
    for name, tensor in network.state_dict().items():
        tensor = tensor.detach().cpu()
        if dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(dtype)
        tensors[name] = tensor.contiguous().clone()
    save_file(tensors, str(path), metadata={"gradbench": json.dumps(about, sort_keys=True)})


def there(path: str | Path) -> Path:
    """Return the path of a checkpoint.

    Raises:
        GradbenchError: if the file is missing.
    """
    if not Path(path).is_file():
        raise GradbenchError(f"backbone.checkpoint={path}: there is no such file")
    return Path(path)


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint: safetensors, or a torch file of weights only.

    Returns:
        (state dict in float32, description; empty where the file has none)

    Raises:
        GradbenchError: if the file is missing, damaged, or would execute code on loading.
    """
    path = there(path)
    about: dict[str, Any] = {}
    try:
        if path.suffix == ".safetensors":
            with safe_open(str(path), framework="pt") as stream:
                about = json.loads((stream.metadata() or {}).get("gradbench", "{}"))
                tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError,
            LookupError, AttributeError, TypeError, OSError) as fault:  # fmt: skip
        # torch's reader meets foreign bytes with almost any exception
        reason = " ".join(str(fault).split())[:120] or type(fault).__name__
        if named := re.search(r"GLOBAL (\S+)", str(fault)):
            reason = f"it holds {named[1]}, a Python object that could execute code"
        raise GradbenchError(
            f"backbone.checkpoint={path} cannot be read as safetensors or as a torch file of "
            f"weights only ({reason})"
        ) from fault
    if not isinstance(tensors, Mapping):
        raise GradbenchError(
            f"backbone.checkpoint={path} holds a {type(tensors).__name__}, not a state dict"
        )
    for key in ("state_dict", "model", "net"):
        if isinstance(tensors.get(key), Mapping):
            tensors = dict(tensors[key])
    tensors = {
        str(name).removeprefix("module."): t for name, t in tensors.items() if torch.is_tensor(t)
    }
    return {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}, about


def load_into(network: nn.Module, path: str | Path) -> dict[str, Any]:
    """Load a checkpoint into a network and return its description.

    Raises:
        GradbenchError: if names or shapes differ, if the number of classes differs, or if a
            weight is not finite.
    """
    tensors, about = read(path)
    own = network.state_dict()
    missing = [n for n in own if n not in tensors and not n.endswith("num_batches_tracked")]
    extra = [n for n in tensors if n not in own]
    if missing or extra:
        raise GradbenchError(
            f"backbone.checkpoint={path} is of another network than the configured "
            f"{type(network).__name__}: "
            + "; ".join(
                f"{what} {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
                for what, names in (("lacks", missing), ("has besides", extra))
                if names
            )
        )
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise GradbenchError(f"backbone.checkpoint={path} holds NaN or infinity in {name}")
    different = [n for n in own if n in tensors and tensors[n].shape != own[n].shape]
    if different:
        name = different[-1]
        last = name.rsplit(".", 1)[0] == list(own)[-1].rsplit(".", 1)[0]
        if last and len(different) <= 2:
            raise GradbenchError(
                f"backbone.checkpoint={path} has {tensors[name].shape[0]} classes, the data set "
                f"has {own[name].shape[0]}"
            )
        name = different[0]
        made = (about.get("network") or {}).get("arguments") or {}
        given = ", ".join(f"{key}={value}" for key, value in sorted(made.items()))
        hint = "look at the settings of the backbone and at the data set's channels"
        hint = f"it was made with {given}" if given else hint
        raise GradbenchError(
            f"backbone.checkpoint={path}: {name} has shape {tuple(tensors[name].shape)}, the "
            f"configured network {tuple(own[name].shape)}; {hint}"
        )
    network.load_state_dict(tensors, strict=False)
    return about
