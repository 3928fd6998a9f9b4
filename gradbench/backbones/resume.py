"""The checkpoint that training writes after every epoch, and goes on from."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gradbench.backbones.recipe import Recipe
from gradbench.support.progress import say


def _identity(recipe: Recipe, seed: int) -> str:
    return json.dumps([asdict(recipe), seed], sort_keys=True)


def keep(
    work: Path,
    network: nn.Module,
    momenta: list[Tensor],
    recipe: Recipe,
    seed: int,
    epoch: int,
    history: dict,
) -> None:
    """Write weights, momenta and history after an epoch, beside their place and then there."""
    tensors = {f"network.{n}": t.contiguous() for n, t in network.state_dict().items()}
    tensors |= {f"momentum.{i}": t.contiguous() for i, t in enumerate(momenta)}
    about = {"recipe": _identity(recipe, seed), "epoch": str(epoch), "history": json.dumps(history)}
    work.mkdir(parents=True, exist_ok=True)
    part = work / "training.part"
    save_file(tensors, str(part), metadata=about)
    with open(part, "rb") as stream:
        os.fsync(stream.fileno())
    os.replace(part, work / "training.safetensors")


def resume(
    work: Path,
    network: nn.Module,
    momenta: list[Tensor],
    recipe: Recipe,
    seed: int,
    tell: bool = True,
) -> tuple[int, dict]:
    """Take over what `keep` wrote last for the same recipe and seed; `tell` says so.

    Returns:
        (epochs done, history); (0, empty lists) where there is nothing to go on from.
    """
    fresh = (0, {"loss": [], "accuracy": [], "seconds": []})
    path = work / "training.safetensors"
    if not path.is_file():
        return fresh
    try:
        with safe_open(str(path), framework="pt") as stream:
            about = stream.metadata()
        tensors = load_file(str(path))
    except SafetensorError:
        return fresh
    if about["recipe"] != _identity(recipe, seed):
        return fresh
    prefix = "network."
    network.load_state_dict(
        {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    )
    for i, momentum in enumerate(momenta):
        momentum.copy_(tensors[f"momentum.{i}"])
    if tell:
        say(f"training goes on after epoch {about['epoch']} of {recipe.epochs}")
    return int(about["epoch"]), json.loads(about["history"])
