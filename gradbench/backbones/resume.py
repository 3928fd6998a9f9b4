"""The checkpoint that training writes after every epoch, and goes on from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from gradbench.backbones.checkpoint import restore
from gradbench.backbones.recipe import Recipe
from gradbench.support.progress import say
from gradbench.support.tensors import load_described, save_tensors


def _identity(recipe: Recipe, seed: int) -> str:
    return json.dumps([asdict(recipe), seed], sort_keys=True)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


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
    tensors = {f"network.{n}": t for n, t in network.state_dict().items()}
    tensors |= {f"momentum.{i}": t for i, t in enumerate(momenta)}
    about = {"recipe": _identity(recipe, seed), "epoch": str(epoch), "history": json.dumps(history)}
    work.mkdir(parents=True, exist_ok=True)
    part = work / "training.part"
    save_tensors(tensors, part, about)
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
        tensors, about = load_described(path)
    except SafetensorError:
        return fresh
    if about["recipe"] != _identity(recipe, seed):
        return fresh
    start = "network."
    state = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
    if _shapes(state) != _shapes(network.state_dict()):
        return fresh  # the network's own code was changed since
    restore(network, state, str(path))
    for i, momentum in enumerate(momenta):
        momentum.copy_(tensors[f"momentum.{i}"])
    if tell:
        say(f"training goes on after epoch {about['epoch']} of {recipe.epochs}")
    return int(about["epoch"]), json.loads(about["history"])
