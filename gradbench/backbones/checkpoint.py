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

from gradbench.backbones import inert
from gradbench.backbones.candidates import Fit, Names, fits
from gradbench.backbones.kinds import STATE, foreign, is_safetensors
from gradbench.backbones.plain import brought
from gradbench.backbones.sharing import first_names, own_memory, state_of
from gradbench.errors import GradbenchError
from gradbench.support.paths import shown
from gradbench.support.progress import say
from gradbench.support.tensors import save_tensors


def save(path: Path, network: nn.Module, about: Mapping[str, Any], dtype=None) -> None:
    """Write a network's state dict and a JSON-able description to one safetensors file.

    A tensor with several names (tied weights) is written once, under the first. Floating-point
    tensors are stored as `dtype` where one is given (bfloat16 halves the size).
    """
    metadata = {"gradbench": json.dumps(about, sort_keys=True)}
    save_tensors(state_of(network), path, metadata, dtype)


def there(path: str | Path) -> Path:
    """Return the path of a checkpoint.

    Raises:
        GradbenchError: if the file is missing.
    """
    if not Path(path).is_file():
        what = " (it is a folder)" if Path(path).is_dir() else ""
        raise GradbenchError(f"backbone.checkpoint={path}: there is no such file{what}")
    return Path(path)


def read(path: str | Path) -> tuple[Any, dict[str, Any]]:
    """Read a checkpoint: safetensors, or a torch file of weights only, whatever its name ends in.

    A file named `.safetensors` must be that, so that what comes from others under this name never
    gets to a reader of pickles.

    Returns:
        (what it holds, on the CPU: a dict of tensors or a torch file's containers of such;
        description, empty where the file has none)

    Raises:
        GradbenchError: if the file is missing, damaged, of another kind, or would execute code on
            loading.
    """
    path = there(path)
    try:
        reason = foreign(path)
        if not reason and is_safetensors(path):
            with safe_open(str(path), framework="pt") as stream:
                about = json.loads((stream.metadata() or {}).get("gradbench", "{}"))
            if not isinstance(about, dict):
                raise ValueError("its description is no JSON object")
            return load_file(str(path)), about
        if not reason and path.suffix == ".safetensors":
            reason = "it is a file of torch: rename it to .pt"
        if not reason:
            return inert.load(path), {}
        fault = None
    except Exception as caught:  # torch's reader meets foreign bytes with almost any exception
        fault, reason = caught, _reason(caught)
    raise GradbenchError(
        f"backbone.checkpoint={path} cannot be read as safetensors or as a torch file of weights "
        f"only ({shown(reason)})"
    ) from fault


def _reason(fault: Exception) -> str:
    """Return in few words why torch or safetensors could not read a file."""
    if isinstance(fault, OSError) and fault.strerror:
        return fault.strerror
    if not (named := re.search(r"GLOBAL (\S{1,200})", str(fault))):
        words = " ".join(str(fault).split())[:120] or type(fault).__name__
        return f"it is damaged, or unlike what torch writes: {words}"
    return (
        f"it holds {named[1]}, a Python object that could execute code: where you trust its "
        f"source, write the weights alone with {STATE}"
    )


def load_into(network: nn.Module, path: str | Path) -> dict[str, Any]:
    """Load a checkpoint into a network and return its description.

    Containers, prefixes and wrappers are looked through. Where the file holds several sets of
    weights that fit, the ordinary ones are taken; what was passed over is said, and stands under
    `note` in the description.

    Raises:
        GradbenchError: if the file cannot be read, names or shapes differ, the number of classes
            differs, or a weight is not finite or no plain number.
    """
    content, about = read(path)
    names = _names(network)
    if content == {} and not names.first:
        return about
    if not isinstance(content, (dict, list, tuple)) or not (found := fits(content, names)):
        what = f"a {type(content).__name__}, not a state dict"
        if isinstance(content, dict):
            keys = _some(list(map(str, dict.keys(content)))) or "none"
            what = f"no tensors by name, but a dict with the keys {keys}"
        raise GradbenchError(f"backbone.checkpoint={path} holds {shown(what)}")
    fit = found[0]
    if not fit.whole:
        raise _other_network(network, path, found)
    equals = [f for f in found[1:] if f.whole and f.rank == fit.rank and not _same(fit, f)]
    if equals and fit.rank[0]:
        places = ", ".join(f"'{shown(f.place)}'" for f in (fit, *equals))
        raise GradbenchError(
            f"backbone.checkpoint={path} holds several sets of weights that fit, under {places}: "
            "write the one that is meant to a file of its own"
        )
    own = network.state_dict(keep_vars=True)
    made = _made_itself(network)
    tensors = {name: t for name, t in fit.tensors.items() if name in own or name in made}
    tensors = brought(tensors, own | made, about, f"backbone.checkpoint={path}")
    for name in tensors.keys() & made.keys():
        if not torch.equal(tensors.pop(name), made[name].cpu()):
            raise GradbenchError(
                f"backbone.checkpoint={path} has another {name} than the configured network makes: "
                "look at the settings of the backbone"
            )
    restore(network, tensors, f"backbone.checkpoint={path}")
    if note := _note(fit, found, len(names.first)):
        about = about | {"note": note}
        say(f"backbone.checkpoint={path}: {note}")
    return about


def restore(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Give a network the tensors of its names; one of several names of a tensor is enough.

    Raises:
        GradbenchError: naming the source if names or shapes differ, tied weights differ in it, or
            the network refuses them.
    """
    names = _names(network)
    if missing := names.missing(tensors) + names.left_over(tensors):
        raise GradbenchError(
            f"{source} is of another network than the configured {type(network).__name__}: "
            f"{_some(missing)} stands in one of them alone"
        )
    given: dict[str, str] = {}
    for name, first in names.first.items():
        if name not in tensors:
            continue
        other = given.setdefault(first, name)
        if name != other and not torch.equal(tensors[name], tensors[other]):
            raise GradbenchError(
                f"{source} has other weights in {other} than in {name}, which are one tensor in "
                f"the configured {type(network).__name__}"
            )
    own_memory(network)
    try:
        network.load_state_dict(tensors, strict=False)
    except RuntimeError as fault:  # of a class that looks at its state itself
        reason = " ".join(str(fault).split())[:200]
        raise GradbenchError(f"{source} is refused by the network ({reason})") from fault


def _names(network: nn.Module) -> Names:
    first = first_names(network)
    return Names(first, frozenset(_made_itself(network)))


def _made_itself(network: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that are no part of a network's state, such as tables of positions."""
    state = network.state_dict().keys()
    buffers = network.named_buffers(remove_duplicate=False)
    return {name: buffer for name, buffer in buffers if name not in state}


def _same(first: Fit, second: Fit) -> bool:
    """Tell whether the second brings nothing but what the first has."""
    return all(
        name in first.tensors
        and (tensor is first.tensors[name] or _equal(tensor, first.tensors[name]))
        for name, tensor in second.tensors.items()
    )


def _equal(first: Tensor, second: Tensor) -> bool:
    try:
        return torch.equal(first, second)
    except RuntimeError:  # a kind of tensor without numbers to compare
        return False


def _note(fit: Fit, found: Sequence[Fit], count: int) -> str:
    """Return what of a file was passed over, empty if nothing was."""
    said = [f"the weights under '{fit.place}' were taken"] if fit.rank[0] else []
    others = [f for f in found[1:] if 2 * len(f.missing) < count and not _same(fit, f)]
    places = dict.fromkeys(f.place for f in others if f.place)
    if places:
        said.append(f"weights under {', '.join(map(repr, places))} were not used")
    prefixes = tuple(f.prefix for f in others if f.path == fit.path and f.prefix)
    beside = [name for name in fit.beside if not name.startswith(prefixes)]
    if beside:
        said.append(f"tensors beside them were not used: {_some(beside)}")
    return shown("; ".join(said))


def _other_network(network: nn.Module, path: str | Path, found: Sequence[Fit]) -> GradbenchError:
    fit = found[0]
    differences = [("lacks", fit.missing), ("has besides", fit.left_over)]
    text = "; ".join(f"{what} {_some(names)}" for what, names in differences if names)
    under = f" (under '{fit.place}')" if fit.place else ""
    tried = "prefixes such as module. and model. were tried"
    if len(found) > 1:
        tried += f"; of {len(found)} sets of tensors in the file this is the nearest"
    return GradbenchError(
        f"backbone.checkpoint={path} is of another network than the configured "
        f"{type(network).__name__}: it{shown(under)} {shown(text)} ({tried})"
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
