"""The checkpoint that training writes after every epoch, and goes on from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from gradbench.backbones.checkpoint import restore
from gradbench.backbones.recipe import Recipe
from gradbench.backbones.sharing import state_of
from gradbench.support.progress import say
from gradbench.support.tensors import save_tensors


def _identity(recipe: Recipe, seed: int) -> str:
    return json.dumps([asdict(recipe), seed], sort_keys=True)


def _kept(network: nn.Module, momenta: list[Tensor]) -> dict[str, Tensor]:
    weights = {f"network.{name}": tensor for name, tensor in state_of(network).items()}
    return weights | {f"momentum.{i}": tensor for i, tensor in enumerate(momenta)}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


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
    about = {"recipe": _identity(recipe, seed), "epoch": str(epoch), "history": json.dumps(history)}
    work.mkdir(parents=True, exist_ok=True)
    part = work / "training.part"
    save_tensors(_kept(network, momenta), part, about)
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
    if _shapes(tensors) != _shapes(_kept(network, momenta)):
        return fresh  # the network's code was changed since
    start = "network."
    state = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
    restore(network, state, str(path))
    for i, momentum in enumerate(momenta):
        momentum.copy_(tensors[f"momentum.{i}"])
    if tell:
        say(f"training goes on after epoch {about['epoch']} of {recipe.epochs}")
    return int(about["epoch"]), json.loads(about["history"])
