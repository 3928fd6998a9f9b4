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

from gradbench.backbones.checkpoint_files import read_torch_file
from gradbench.backbones.checkpoint_weights import Candidate, TensorNames, find_candidates
from gradbench.backbones.shared_tensors import unique_state
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
    """Return the path of a checkpoint; raise a GradbenchError if there is no such file."""
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
    path, head = existing_checkpoint(path), b""
    try:
        with open(path, "rb") as stream:
            head = stream.read(24)
        # safetensors begin with eight bytes of length and a JSON object
        if path.suffix != ".safetensors" and head[8:9] != b"{":
            return read_torch_file(path), {}
        with safe_open(str(path), framework="pt") as stream:
            about = json.loads((stream.metadata() or {}).get("gradbench", "{}"))
        if not isinstance(about, dict):
            raise ValueError("its description is no JSON object")
        return load_file(str(path)), about
    except Exception as fault:  # torch's reader meets foreign bytes with almost any exception
        raise GradbenchError(
            f"backbone.checkpoint={path} cannot be read as safetensors or as a torch file of "
            f"weights only ({printable(_reason(fault, head))})"
        ) from fault


def _reason(fault: Exception, head: bytes) -> str:
    """Return in few words why torch or safetensors could not read a file that begins with this."""
    if isinstance(fault, OSError) and fault.strerror:
        return fault.strerror
    if named := re.search(r"GLOBAL (\S{1,200})", str(fault)):
        return (
            f"it holds {named[1]}, a Python object that could execute code: where you trust its "
            "source, write the weights alone to another file, where Python can import the class: "
            "network = torch.load(FILE, map_location='cpu', weights_only=False); "
            "torch.save(network.state_dict(), OTHER)"
        )
    text = " ".join(str(fault).split())
    text = text.partition("WeightsUnpickler error: ")[2] or text or type(fault).__name__
    return f"it is damaged, or of another kind: it begins with {head!r}; {text[:120]}"


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
    names = TensorNames(network)
    candidates = []
    if isinstance(content, dict | list | tuple):
        candidates = find_candidates(content, names)
    if not candidates:
        held = f"a {type(content).__name__}, not a state dict"
        if isinstance(content, dict):
            keys = _listed(list(map(str, dict.keys(content)))) or "nothing"
            held = f"no tensors by name, but a dict of {keys}"
        raise GradbenchError(f"{source} holds {printable(held)}")
    best, *others = candidates
    if not best.complete:
        raise GradbenchError(_difference(network, source, candidates))
    others = [c for c in others if c.complete and not c.adds_nothing_to(best)]
    equals = [c.place for c in (best, *others) if c.rank == best.rank]
    if len(equals) > 1 and best.rank[0]:
        raise GradbenchError(
            f"{source} holds several sets of weights that fit, under "
            f"{printable(', '.join(map(repr, equals)))}: write the one that is meant to a file of "
            "its own"
        )
    tensors = {name: t for name, t in best.tensors.items() if name in names.first}
    tensors, loaded_as = _converted(tensors, network, source), {}
    for name in sorted(tensors):
        other = loaded_as.setdefault(names.first[name], name)
        if not torch.equal(tensors[name], tensors[other]):
            raise GradbenchError(
                f"{source} has other weights in {other} than in {name}, which are one tensor in "
                f"the configured {type(network).__name__}"
            )
    load_tensors(network, tensors, source)
    if note := _note(best, others):
        about = about | {"note": note}
        say(f"{source}: {note}")
    return about


def load_tensors(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load all tensors of a network's state; one of several names of a tensor is enough.

    `source` is how messages begin.

    Raises:
        GradbenchError: if their names are others, or the network refuses them.
    """
    names = TensorNames(network)
    if different := names.missing(tensors) + names.left_over(tensors):
        raise GradbenchError(
            f"{source} is of another network than the configured {type(network).__name__}: only "
            f"one of them has {_listed(different)}"
        )
    separate: dict[Tensor, Tensor] = {}  # a buffer with several names keeps all of them
    for module in network.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:  # numbers of an expanded buffer share memory: none can be set
                module._buffers[name] = separate.setdefault(buffer, buffer.contiguous())
    try:
        network.load_state_dict(tensors, strict=False)
    except RuntimeError as fault:  # of a class that looks at its state itself
        reason = " ".join(str(fault).split())[:200]
        raise GradbenchError(f"{source} is refused by the network ({reason})") from fault


def _converted(tensors: Mapping[str, Tensor], network: nn.Module, source: str) -> dict[str, Tensor]:
    """Return tensors of a file in the types of the network's own, or refuse them."""
    state, converted = network.state_dict(), {}
    for name, tensor in tensors.items():
        # of these kinds some have no shape, and some no numbers
        dense = tensor.layout == torch.strided and not tensor.is_nested
        if tensor.is_meta or tensor.is_quantized or not dense:
            raise GradbenchError(
                f"{source} holds in {name} no plain numbers (a tensor that is quantised, sparse, "
                "nested or empty): save the network's ordinary weights"
            )
    _check_shapes(tensors, state, source)
    for name, tensor in tensors.items():
        target = state[name]
        packed = target.is_floating_point() and not tensor.is_floating_point()
        if packed or tensor.is_complex() != target.is_complex():
            kinds = [str(t.dtype).removeprefix("torch.") for t in (tensor, target)]
            raise GradbenchError(
                f"{source} holds {kinds[0]} numbers in {name}, the configured network {kinds[1]}: "
                "weights that were quantised or packed lack the scale to go on"
            )
        values = tensor.detach().reshape(target.shape).to(target.dtype)
        bad = ~torch.isfinite(values)
        # a mask of -inf that the network has, too, is fine
        if bad.any() and not torch.equal(values[bad], target.cpu()[bad]):
            raise GradbenchError(f"{source} holds NaN or infinity in {name}")
        converted[name] = values
    return converted


def _check_shapes(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    different = [
        name
        for name in own
        if name in tensors
        and tensors[name].shape != own[name].shape
        and not (own[name].dim() == 0 and tensors[name].shape == (1,))  # of torch before 0.4
    ]
    if not different:
        return
    shapes = [(tuple(tensors[name].shape), tuple(own[name].shape)) for name in different]
    counts = {(theirs[:1], ours[:1]) for theirs, ours in shapes}
    one_layer = len({name.rpartition(".")[0] for name in different}) == len(counts) == 1
    theirs, ours = shapes[0]
    if one_layer and theirs and ours and all(a[1:] == b[1:] for a, b in shapes):
        # one layer alone, which is the last: the layer after any other one would differ, too
        raise GradbenchError(f"{source} has {theirs[0]} classes, the data set has {ours[0]}")
    raise GradbenchError(
        f"{source}: {different[0]} has shape {theirs}, the configured network {ours}; look at the "
        "settings of the backbone (backbone.width, backbone.depth) and at the data set's channels"
    )


def _note(taken: Candidate, others: Sequence[Candidate]) -> str:
    """Return which weights of a file were passed over for those taken, empty if none were."""
    parts = [f"the weights under '{taken.place}' were taken"] if taken.rank[0] else []
    if others:
        places = ", ".join(repr(c.place) for c in others)
        parts.append(f"weights under {places} were not used")
    if taken.beside:
        parts.append(f"tensors beside them were not used: {_listed(taken.beside)}")
    return printable("; ".join(parts))


def _difference(network: nn.Module, source: str, candidates: Sequence[Candidate]) -> str:
    """Return a sentence on what the nearest set of tensors in a file lacks and has besides."""
    nearest, *others = candidates
    differences = [("lacks", nearest.missing), ("has besides", nearest.left_over)]
    text = "; ".join(f"{verb} {_listed(names)}" for verb, names in differences if names)
    under = f" (under '{nearest.place}')" if nearest.place else ""
    places = [repr(c.place) if c.place else "the file itself" for c in others]
    elsewhere = f", and {_listed(places)}, which are further from it" if places else ""
    return (
        f"{source} is of another network than the configured {type(network).__name__}: "
        f"it{printable(under)} {printable(text)} (prefixes such as module. and model. were tried"
        f"{printable(elsewhere)})"
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
