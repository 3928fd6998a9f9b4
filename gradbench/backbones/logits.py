"""The logits among what a network gives: a tensor, or a tuple, dictionary or object of several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gradbench.errors import GradbenchError

NAME = "logits"


def logits_of(output: Any, classes: int) -> Tensor:
    """Return the logits (B, classes) of an output of a network, see `named_logits`."""
    return output if isinstance(output, Tensor) else named_logits(output, classes)[1]


def named_logits(output: Any, classes: int) -> tuple[str, Tensor]:
    """Return the logits among several outputs, and the name of the entry that they are.

    The entry called `logits`, or else the only one of the shape (B, classes).

    Raises:
        GradbenchError: if there is no such entry, or several.
    """
    entries = _entries(output)
    if isinstance(entries.get(NAME), Tensor):
        return NAME, entries[NAME]
    tensors = {name: value for name, value in entries.items() if isinstance(value, Tensor)}
    fits = [n for n, value in tensors.items() if value.dim() == 2 and value.shape[1] == classes]
    if len(fits) == 1:
        return fits[0], entries[fits[0]]
    told = ", ".join(f"{name} {_shape(value)}" for name, value in entries.items())
    raise GradbenchError(
        f"the network gives {type(output).__name__}{f' of {told}' if told else ''}, in which the "
        f"logits (B, {classes}) are not to be told: let forward return them alone, or under the "
        f"name {NAME}"
    )


def _entries(output: Any) -> dict[str, Any]:
    if isinstance(output, Mapping):
        return {str(name): value for name, value in output.items()}
    if hasattr(output, "_asdict"):  # a named tuple
        return output._asdict()
    if isinstance(output, tuple | list):
        return {f"[{place}]": value for place, value in enumerate(output)}
    return {name: value for name, value in getattr(output, "__dict__", {}).items()
            if isinstance(value, Tensor)}  # fmt: skip


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"({type(value).__name__})"
