"""Training of f: SGD with Nesterov momentum, resumable after every epoch.

All randomness is drawn on the CPU from the seed and the number of the epoch, and the learning
rate is a function of the step alone, so a run that was killed ends in the weights of an
undisturbed one.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gradbench.backbones.augment import crop, flip
from gradbench.backbones.backbone import Backbone
from gradbench.data.imageset import ImageSet, to_float
from gradbench.errors import GradbenchError
from gradbench.progress import Progress, duration, say

PROBE = 5
"""Steps that are timed before the remaining hours are told."""


@dataclass(frozen=True)
class Recipe:
    """How f is trained.

    Attributes:
        epochs: passes over the training images.
        batch: images in a step.
        lr: largest learning rate.
        schedule: `onecycle` (linear rise over the first 30 %, linear fall) or `cosine`.
        momentum: of Nesterov's method.
        weight_decay: on every parameter.
        pad: largest shift of a random crop in pixels, 0 for none.
        flip: mirror images at random; off for digits and signs.
        precision: `auto` (bfloat16 autocast where the hardware has it), `bfloat16` or `float32`.
    """

    epochs: int = 30
    batch: int = 128
    lr: float = 0.1
    schedule: str = "onecycle"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    pad: int = 4
    flip: bool = True
    precision: str = "auto"

    def __post_init__(self):
        for field in fields(self):
            value, wanted = getattr(self, field.name), type(field.default)
            whole = wanted is float and type(value) is int
            if type(value) is not wanted and not whole:
                raise GradbenchError(
                    f"training.{field.name}={value} is no {wanted.__name__}: "
                    f"write for example {field.default}"
                )
        for name, least in (("epochs", 1), ("batch", 2), ("lr", 0), ("pad", 0)):
            if getattr(self, name) < least:
                raise GradbenchError(f"training.{name}={getattr(self, name)}: at least {least}")
        for name, choices in (
            ("schedule", ("onecycle", "cosine")),
            ("precision", ("auto", "bfloat16", "float32")),
        ):
            if getattr(self, name) not in choices:
                raise GradbenchError(
                    f"training.{name}={getattr(self, name)}: choose {' or '.join(choices)}"
                )

    def rate(self, done: float) -> float:
        """Return the learning rate at a fraction of training in [0, 1]."""
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * done))
        return self.lr * (done / 0.3 if done < 0.3 else (1 - done) / 0.7)


def train(
    backbone: Backbone,
    images: ImageSet,
    recipe: Recipe,
    seed: int,
    work: Path,
    device: torch.device,
    narrower: str = "",
) -> dict:
    """Train a backbone in place and leave it in evaluation mode.

    Args:
        backbone: the network to train; initialise it after `torch.manual_seed(seed)`.
        images: training images, without the hold-out.
        recipe: how.
        seed: of order, crops and flips.
        work: folder of the checkpoint, written after every epoch; training goes on from there.
        device: to train on.
        narrower: override that names a cheaper network, told when a CPU would take long.

    Returns:
        History: a dict with a list of `loss`, `accuracy` and `seconds` for each epoch.

    Raises:
        GradbenchError: if the loss stops being finite.
    """
    network = backbone.to(device)
    network.to(memory_format=torch.channels_last)
    autocast = _autocast(recipe, device)
    pixels = torch.from_numpy(images.images[slice(None)])
    labels = torch.from_numpy(images.labels)
    if device.type == "cuda":
        pixels, labels = pixels.to(device), labels.to(device)
    parameters = list(network.parameters())
    momenta = [torch.zeros_like(p) for p in parameters]
    first, history = _resume(work, network, momenta, recipe, seed)
    # the last images of an epoch that do not fill a batch wait for another epoch
    steps = max(len(images) // recipe.batch, 1)
    total = recipe.epochs * steps
    state = _Steps(network, parameters, momenta, recipe, total, autocast)

    if first < recipe.epochs:
        left = (recipe.epochs - first) * steps
        _tell_time(seconds_left(backbone, images, recipe, device, left), left, device, narrower)
    with Progress("training", total, "steps", done=first * steps) as progress:
        for epoch in range(first, recipe.epochs):
            begun = time.monotonic()
            torch.manual_seed(seed * 1_000_003 + epoch)  # for networks that draw numbers themselves
            draw = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
            order = torch.randperm(len(images), generator=draw)
            network.train()
            loss_sum = torch.zeros((), device=device)
            right = torch.zeros((), device=device)
            for step in range(steps):
                rows = order[step * recipe.batch : (step + 1) * recipe.batch].to(pixels.device)
                batch = augmented(pixels[rows].to(device), recipe, draw)
                loss, hits = state.step(batch, labels[rows].to(device), epoch * steps + step)
                loss_sum += loss
                right += hits
                progress.advance(1)
            history["loss"].append(loss_sum.item() / steps)
            history["accuracy"].append(right.item() / (steps * min(recipe.batch, len(images))))
            history["seconds"].append(round(time.monotonic() - begun, 2))
            if not math.isfinite(history["loss"][-1]):
                raise GradbenchError(
                    f"training diverged in epoch {epoch + 1}: the loss is not finite; "
                    f"try a smaller training.lr than {recipe.lr}"
                )
            _keep(work, network, momenta, recipe, seed, epoch + 1, history)
            if history["seconds"][-1] > 10:
                say(
                    f"epoch {epoch + 1} of {recipe.epochs}: loss {history['loss'][-1]:.4f}, "
                    f"training accuracy {100 * history['accuracy'][-1]:.2f} %, "
                    f"{history['seconds'][-1]:.0f} s"
                )
    network.to(memory_format=torch.contiguous_format)
    network.eval()
    return history


def accuracy(backbone: Backbone, images: ImageSet, batch: int = 256) -> float:
    """Return the share of images in [0, 1] whose class the backbone names, in float32."""
    right = 0
    backbone.eval()
    with torch.inference_mode():
        for rows, pixels in images.batches(batch):
            predicted = backbone(pixels.to(backbone.device)).argmax(1).cpu().numpy()
            right += int((predicted == images.labels[rows]).sum())
    return right / len(images)


def augmented(pixels: Tensor, recipe: Recipe, draw: torch.Generator) -> Tensor:
    """Return uint8 images (B, C, H, W) as floats in [0, 1], cropped and mirrored at random."""
    pixels = crop(pixels, recipe.pad, draw)
    if recipe.flip:
        pixels = flip(pixels, draw)
    return to_float(pixels).contiguous(memory_format=torch.channels_last)


class _Steps:
    """One optimiser step at a time; the rate depends on the number of the step alone."""

    def __init__(self, network, parameters, momenta, recipe: Recipe, total: int, autocast):
        self.network, self.parameters, self.momenta = network, parameters, momenta
        self.recipe, self.total, self.autocast = recipe, total, autocast

    def step(self, images: Tensor, labels: Tensor, number: int) -> tuple[Tensor, Tensor]:
        with self.autocast():
            logits = self.network(images)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        grads = torch.autograd.grad(loss, self.parameters)
        with torch.no_grad():
            rate, mu = self.recipe.rate(number / self.total), self.recipe.momentum
            grads = torch._foreach_add(grads, self.parameters, alpha=self.recipe.weight_decay)
            torch._foreach_mul_(self.momenta, mu)
            torch._foreach_add_(self.momenta, grads)
            # Nesterov: the gradient plus the momentum's next step
            torch._foreach_add_(grads, self.momenta, alpha=mu)
            torch._foreach_add_(self.parameters, grads, alpha=-rate)
        return loss.detach(), logits.argmax(1).eq(labels).sum()


def resolved(recipe: Recipe, device: torch.device) -> Recipe:
    """Return a recipe with `precision=auto` replaced by what the device has."""
    if recipe.precision != "auto":
        return recipe
    return replace(recipe, precision="bfloat16" if _has_bfloat16(device) else "float32")


def _autocast(recipe: Recipe, device: torch.device) -> Callable:
    wanted = resolved(recipe, device).precision == "bfloat16"
    return lambda: torch.autocast(device.type, torch.bfloat16, enabled=wanted)


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":  # torch has no public name for this
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, bool)() for name in names)
    return False


def seconds_left(
    backbone: Backbone, images: ImageSet, recipe: Recipe, device: torch.device, steps: int
) -> float:
    """Time a few steps on a copy of a network and return what `steps` steps would take."""
    network = copy.deepcopy(backbone).to(device).to(memory_format=torch.channels_last).train()
    parameters = list(network.parameters())
    momenta = [torch.zeros_like(p) for p in parameters]
    trial = _Steps(network, parameters, momenta, recipe, steps, _autocast(recipe, device))
    draw = torch.Generator().manual_seed(0)
    rows = np.arange(min(recipe.batch, len(images)))
    pixels = torch.from_numpy(images.images[rows]).to(device)
    labels = torch.from_numpy(images.labels[rows]).to(device)
    times = []
    for _ in range(PROBE):
        begun = time.monotonic()
        loss, _ = trial.step(augmented(pixels, recipe, draw), labels, 0)
        loss.item()
        times.append(time.monotonic() - begun)
    return sorted(times)[PROBE // 2] * steps


def _tell_time(seconds: float, steps: int, device: torch.device, narrower: str) -> None:
    """Tell what training will take, and on a slow machine what would be cheaper."""
    text = f"training: {steps} steps, about {duration(seconds)} on {device.type}"
    if seconds > 7200 and device.type == "cpu":
        text += (
            f"; {narrower + ' is cheaper, and ' if narrower else ''}"
            "backbone.checkpoint=PATH takes a network that is trained already"
        )
    say(text)


def _identity(recipe: Recipe, seed: int) -> str:
    return json.dumps([asdict(recipe), seed], sort_keys=True)


def _keep(work: Path, network, momenta, recipe, seed, epoch: int, history: dict) -> None:
    tensors = {f"network.{n}": t.contiguous() for n, t in network.state_dict().items()}
    tensors |= {f"momentum.{i}": t.contiguous() for i, t in enumerate(momenta)}
    about = {"recipe": _identity(recipe, seed), "epoch": str(epoch), "history": json.dumps(history)}
    work.mkdir(parents=True, exist_ok=True)
    part = work / "training.part"
    save_file(tensors, str(part), metadata=about)
    with open(part, "rb") as stream:
        os.fsync(stream.fileno())
    os.replace(part, work / "training.safetensors")


def _resume(work: Path, network, momenta, recipe, seed) -> tuple[int, dict]:
    from safetensors import SafetensorError, safe_open

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
    say(f"training goes on after epoch {about['epoch']} of {recipe.epochs}")
    return int(about["epoch"]), json.loads(about["history"])
