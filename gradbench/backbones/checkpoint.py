"""Networks on disk: safetensors with a JSON description, nothing that executes on loading."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from gradbench.backbones.checkpoint_files import (
    SAVE_STATE,
    is_safetensors,
    read_torch_file,
    unreadable_reason,
)
from gradbench.backbones.checkpoint_weights import (
    Candidate,
    TensorNames,
    convert_tensors,
    find_candidates,
)
from gradbench.backbones.shared_tensors import first_names, unique_state, unshare_expanded_buffers
from gradbench.errors import GradbenchError, printable
from gradbench.support.progress import say
from gradbench.support.tensors import save_tensors


def save_checkpoint(path: Path, network: nn.Module, about: Mapping[str, Any], dtype=None) -> None:
    """Write a network's state dict and a JSON-able description to one safetensors file.

    A tensor with several names (tied weights) is written once, under the first. Floating-point
    tensors are stored as `dtype` where one is given (bfloat16 halves the size).
    """
    metadata = {"gradbench": json.dumps(about, sort_keys=True)}
    save_tensors(unique_state(network), path, metadata, dtype)


def existing_checkpoint(path: str | Path) -> Path:
    """Return the path of a checkpoint.

    Raises:
        GradbenchError: if the file is missing.
    """
    if not Path(path).is_file():
        folder = " (it is a folder)" if Path(path).is_dir() else ""
        raise GradbenchError(f"backbone.checkpoint={path}: there is no such file{folder}")
    return Path(path)


def read_checkpoint(path: str | Path) -> tuple[Any, dict[str, Any]]:
    """Read a checkpoint: safetensors, or a torch file of weights only, whatever its name ends in.

    A file named `.safetensors` must be that, so that what comes from others under this name never
    gets to a reader of pickles.

    Returns:
        (its content on the CPU: a dict of tensors or a torch file's containers of such;
        its description, empty where the file has none)

    Raises:
        GradbenchError: if the file is missing, damaged, of another kind, or would execute code on
            loading.
    """
    path = existing_checkpoint(path)
    cause = None
    try:
        reason = unreadable_reason(path)
        if not reason and is_safetensors(path):
            with safe_open(str(path), framework="pt") as stream:
                about = json.loads((stream.metadata() or {}).get("gradbench", "{}"))
            if not isinstance(about, dict):
                raise ValueError("its description is no JSON object")
            return load_file(str(path)), about
        if not reason and path.suffix == ".safetensors":
            reason = "it is a file of torch: rename it to .pt"
        if not reason:
            return read_torch_file(path), {}
    except Exception as fault:  # torch's reader meets foreign bytes with almost any exception
        cause, reason = fault, _reason(fault)
    raise GradbenchError(
        f"backbone.checkpoint={path} cannot be read as safetensors or as a torch file of weights "
        f"only ({printable(reason)})"
    ) from cause


def _reason(fault: Exception) -> str:
    """Return in few words why torch or safetensors could not read a file."""
    if isinstance(fault, OSError) and fault.strerror:
        return fault.strerror
    if not (named := re.search(r"GLOBAL (\S{1,200})", str(fault))):
        words = " ".join(str(fault).split())[:120] or type(fault).__name__
        return f"it is damaged, or unlike what torch writes: {words}"
    return (
        f"it holds {named[1]}, a Python object that could execute code: where you trust its "
        f"source, write the weights alone with {SAVE_STATE}"
    )


def load_checkpoint(network: nn.Module, path: str | Path) -> dict[str, Any]:
    """Load a checkpoint into a network and return its description.

    Containers, prefixes and wrappers are looked through. Where the file holds several sets of
    weights that fit, the ordinary ones are taken; what was passed over is said, and is the
    `note` of the description.

    Raises:
        GradbenchError: if the file cannot be read, names or shapes differ, the number of classes
            differs, or a weight is not finite or no plain number.
    """
    source = f"backbone.checkpoint={path}"
    content, about = read_checkpoint(path)
    names = _tensor_names(network)
    if content == {} and not names.first:
        return about
    candidates = find_candidates(content, names) if isinstance(content, (dict, list, tuple)) else []
    if not candidates:
        held = f"a {type(content).__name__}, not a state dict"
        if isinstance(content, dict):
            keys = _listed(list(map(str, dict.keys(content)))) or "none"
            held = f"no tensors by name, but a dict with the keys {keys}"
        raise GradbenchError(f"{source} holds {printable(held)}")
    best, *others = candidates
    if not best.complete:
        raise GradbenchError(_difference(network, source, candidates))
    equals = [
        c for c in others if c.complete and c.rank == best.rank and not c.adds_nothing_to(best)
    ]
    if equals and best.rank[0]:
        places = ", ".join(f"'{printable(c.place)}'" for c in (best, *equals))
        raise GradbenchError(
            f"{source} holds several sets of weights that fit, under {places}: "
            "write the one that is meant to a file of its own"
        )
    own = network.state_dict(keep_vars=True)
    made = _unsaved_buffers(network)
    tensors = {name: t for name, t in best.tensors.items() if name in own or name in made}
    tensors = convert_tensors(tensors, own | made, about, source)
    for name in tensors.keys() & made.keys():
        if not torch.equal(tensors.pop(name), made[name].cpu()):
            raise GradbenchError(
                f"{source} has another {name} than the configured network makes: "
                "look at the settings of the backbone"
            )
    load_tensors(network, tensors, source)
    if note := _note(best, others, len(names.first)):
        about = about | {"note": note}
        say(f"{source}: {note}")
    return about


def load_tensors(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load tensors into a network by its names; one of several names of a tensor is enough.

    Args:
        network: is changed in place.
        tensors: by name, of the shapes of the network's own.
        source: how messages begin.

    Raises:
        GradbenchError: if names or shapes differ, tied weights differ in the source, or the network
            refuses them.
    """
    kind = type(network).__name__
    names = _tensor_names(network)
    if different := names.missing(tensors) + names.left_over(tensors):
        raise GradbenchError(
            f"{source} is of another network than the configured {kind}: only one of "
            f"them has {_listed(different)}"
        )
    loaded_as: dict[str, str] = {}
    for name, first in names.first.items():
        if name not in tensors:
            continue
        other = loaded_as.setdefault(first, name)
        if name != other and not torch.equal(tensors[name], tensors[other]):
            raise GradbenchError(
                f"{source} has other weights in {other} than in {name}, which are one tensor in "
                f"the configured {kind}"
            )
    unshare_expanded_buffers(network)
    try:
        network.load_state_dict(tensors, strict=False)
    except RuntimeError as fault:  # of a class that looks at its state itself
        reason = " ".join(str(fault).split())[:200]
        raise GradbenchError(f"{source} is refused by the network ({reason})") from fault


def _tensor_names(network: nn.Module) -> TensorNames:
    return TensorNames(first_names(network), frozenset(_unsaved_buffers(network)))


def _unsaved_buffers(network: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that are no part of a network's state, such as tables of positions."""
    state = network.state_dict().keys()
    buffers = network.named_buffers(remove_duplicate=False)
    return {name: buffer for name, buffer in buffers if name not in state}


def _note(taken: Candidate, others: Sequence[Candidate], count: int) -> str:
    """Return which weights of a file were passed over, empty if none were.

    Args:
        taken: what was loaded.
        others: the other sets of tensors in the file.
        count: of names in the network.
    """
    parts = [f"the weights under '{taken.place}' were taken"] if taken.rank[0] else []
    others = [c for c in others if 2 * len(c.missing) < count and not c.adds_nothing_to(taken)]
    if places := dict.fromkeys(c.place for c in others if c.place):
        parts.append(f"weights under {', '.join(map(repr, places))} were not used")
    prefixes = tuple(c.prefix for c in others if c.path == taken.path and c.prefix)
    if beside := [name for name in taken.beside if not name.startswith(prefixes)]:
        parts.append(f"tensors beside them were not used: {_listed(beside)}")
    return printable("; ".join(parts))


def _difference(network: nn.Module, source: str, candidates: Sequence[Candidate]) -> str:
    """Return a sentence on what the nearest set of tensors in a file lacks and has besides."""
    nearest = candidates[0]
    differences = [("lacks", nearest.missing), ("has besides", nearest.left_over)]
    text = "; ".join(f"{verb} {_listed(names)}" for verb, names in differences if names)
    under = f" (under '{nearest.place}')" if nearest.place else ""
    tried = "prefixes such as module. and model. were tried"
    if len(candidates) > 1:
        tried += f"; of {len(candidates)} sets of tensors in the file this is the nearest"
    return (
        f"{source} is of another network than the configured {type(network).__name__}: "
        f"it{printable(under)} {printable(text)} ({tried})"
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
