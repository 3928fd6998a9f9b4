"""Training of f: SGD with Nesterov momentum, resumable after every epoch.

All randomness is drawn on the CPU from the seed and the number of the epoch, and the learning
rate is a function of the step alone, so a run that was killed ends in the weights of an
undisturbed one.

Several processes may train together: each draws the order and the augmentation of the whole batch
and takes its shard of the images, gradients and the statistics of batch norm are those of the whole
batch. The number of processes then changes the rounding of sums and nothing else, as another kind
of hardware does, except for networks that draw random numbers themselves (dropout).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from gradbench.backbones.backbone import Backbone
from gradbench.backbones.batch_norm import synchronise_batch_norm
from gradbench.backbones.checkpoint import load_tensors
from gradbench.backbones.recipe import Recipe
from gradbench.backbones.shared_tensors import (
    check_separate,
    copy_network,
    move_network,
    unique_state,
)
from gradbench.backbones.workers import Worker, WorkerPool
from gradbench.data.imageset import ImageSet
from gradbench.errors import GradbenchError
from gradbench.support.progress import Progress, duration, say, step
from gradbench.support.tensors import save_tensors

TIMED_STEPS = 5
"""Steps that are timed before the remaining hours are announced."""
LONGEST_TIMING = 10.0
"""Seconds that they may take; otherwise a step of a few images is timed."""
FEW_IMAGES = 8
"""Images of a process in such a step."""


def train(
    backbone: Backbone,
    images: ImageSet,
    recipe: Recipe,
    seed: int,
    work: Path,
    worker: Worker,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
) -> dict:
    """Train a backbone in place and leave it in evaluation mode.

    Args:
        backbone: the network to train; initialise it after `torch.manual_seed(seed)`.
        images: training images, without the hold-out.
        recipe: settings of training.
        seed: of order, crops and flips.
        work: folder of the checkpoint, written after every epoch; training goes on from there.
        worker: this process with its device, alone or among several that train together.
        loss: mean loss of logits (B, N) for labels (B,).

    Returns:
        History: a dict with a list of `loss`, `accuracy` and `seconds` for each epoch.

    Raises:
        GradbenchError: if the loss stops being finite, a parameter shares memory with another
            tensor, or the network does not take the smaller images of `reduced`.
    """
    check_separate(backbone.network)
    _check_reduced(backbone, recipe)
    # the last images of an epoch that do not fill a batch wait for another epoch
    steps = max(len(images) // recipe.batch, 1)
    optimiser = _Optimiser(backbone, recipe, recipe.epochs * steps, worker, loss)
    device = worker.device
    pixels, labels = torch.from_numpy(images.images[slice(None)]), torch.from_numpy(images.labels)
    if device.type == "cuda":
        pixels, labels = pixels.to(device), labels.to(device)
    done, history = _load_progress(work, optimiser, seed)
    total = recipe.epochs * steps
    if left := total - done * steps:
        reduced = sum(recipe.reduces(epoch / recipe.epochs) for epoch in range(done, recipe.epochs))
        cost = left - reduced * steps * (1 - 9 / 16)  # in steps of whole images
        seconds = estimate_seconds(backbone, images, recipe, cost, worker)
        if worker.is_main:
            _announce(seconds, left, worker)
    with Progress("training", total, "steps", done * steps, worker.is_main) as progress:
        for epoch in range(done, recipe.epochs):
            begun = time.monotonic()
            # networks that draw numbers themselves draw others in each process
            torch.manual_seed(seed * 1_000_003 + epoch + worker.rank * 500_009)
            generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
            order = torch.randperm(len(images), generator=generator)
            backbone.train()
            loss_sum, hit_sum = torch.zeros((), device=device), torch.zeros((), device=device)
            for number in range(steps):
                rows = order[number * recipe.batch : (number + 1) * recipe.batch].to(pixels.device)
                batch = recipe.augment(pixels[rows].to(device), generator, epoch / recipe.epochs)
                batch_labels = labels[rows].to(device)
                loss_value, hits = optimiser.step(batch, batch_labels, epoch * steps + number)
                loss_sum += loss_value
                hit_sum += hits
                progress.advance(1)
            loss_sum, hit_sum = worker.all_reduce([loss_sum, hit_sum])
            history["loss"].append(loss_sum.item() / steps)
            history["accuracy"].append(hit_sum.item() / (steps * min(recipe.batch, len(images))))
            history["seconds"].append(round(time.monotonic() - begun, 2))
            if not math.isfinite(history["loss"][-1]):
                raise GradbenchError(
                    f"training diverged in epoch {epoch + 1}: the loss is not finite; "
                    f"try a smaller training.lr than {recipe.lr}"
                )
            if worker.is_main:
                _save_progress(work, optimiser, seed, epoch + 1, history)
            if worker.is_main and history["seconds"][-1] > 10:
                say(
                    f"epoch {epoch + 1} of {recipe.epochs}: loss {history['loss'][-1]:.4f}, "
                    f"training accuracy {100 * history['accuracy'][-1]:.2f} %, "
                    f"{history['seconds'][-1]:.0f} s"
                )
    move_network(backbone, memory_format=torch.contiguous_format)
    backbone.eval()
    return history


def _check_reduced(backbone: Backbone, recipe: Recipe) -> None:
    """Refuse smaller images where the network takes its own size alone."""
    if not recipe.reduced:
        return
    images = recipe.augment(
        torch.zeros(1, *backbone.shape, dtype=torch.uint8), torch.Generator(), 0
    )
    backbone.eval()
    try:
        with torch.no_grad():
            backbone(images.to(backbone.device))
    except Exception as fault:  # a network may answer another size with any
        raise GradbenchError(
            f"training.reduced={recipe.reduced}: {type(backbone.network).__name__} takes no images "
            f"of {images.shape[2]}x{images.shape[3]}, three quarters of its own: set it to 0"
        ) from fault


def train_distributed(
    pool: WorkerPool,
    backbone: Backbone,
    images: ImageSet,
    recipe: Recipe,
    seed: int,
    work: Path,
) -> dict:
    """Train a backbone as `train` does, each batch shared out among the workers of a pool.

    The batch, its learning rate and its batch-norm statistics are those of one process, so the
    number of workers is no part of what the network is; a training that was stopped goes on with
    any number of them. The batch holds at least one image for each worker.
    """
    images = replace(images, images=images.images[slice(None)])
    arguments = (backbone, images, recipe, seed, work)
    weights, history = pool.call("training", _train_worker, *arguments)
    load_tensors(backbone.network, weights, "training")
    return history


def _train_worker(worker: Worker, backbone: Backbone, images, recipe, seed, work):
    synchronise_batch_norm(backbone.network, worker.device)
    history = train(backbone, images, recipe, seed, work, worker)
    return {n: tensor.cpu() for n, tensor in unique_state(backbone.network).items()}, history


class _Optimiser:
    """SGD with Nesterov momentum, one step at a time, on a network that it moves to its device.

    `torch.optim.SGD` computes the same numbers, but imports torch's compiler: two seconds in every
    process.
    """

    def __init__(self, backbone: Backbone, recipe: Recipe, total: int, worker: Worker, loss):
        move_network(backbone, worker.device)
        move_network(backbone, memory_format=torch.channels_last)
        self.backbone, self.recipe, self.total = backbone, recipe, total
        self.worker, self.loss = worker, loss
        self.autocast = recipe.autocast(worker.device)
        self.parameters = [p for p in backbone.parameters() if p.requires_grad]
        if not self.parameters:
            raise GradbenchError(
                "the backbone has no parameter that could be trained (with requires_grad)"
            )
        self.momenta = [torch.zeros_like(p) for p in self.parameters]

    def step(self, images: Tensor, labels: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Make a step on a batch; return this process's part of its mean loss and of its hits."""
        shard = self.worker.shard(len(images))
        images, own_labels = images[shard], labels[shard]
        with self.autocast():
            logits = self.backbone(images)
        loss = self.loss(logits.float(), own_labels)
        if not loss.requires_grad:
            raise GradbenchError(
                "the backbone cannot be trained: its outputs have no autograd graph, since its "
                "forward runs under torch.no_grad or inference_mode, detaches, or uses no parameter"
            )
        if len(own_labels) < len(labels):
            loss = loss * (len(own_labels) / len(labels))
        grads = torch.autograd.grad(loss, self.parameters, materialize_grads=True)
        grads = self.worker.all_reduce(grads)
        with torch.no_grad():
            rate = self.recipe.learning_rate(number / self.total)
            grads = torch._foreach_add(grads, self.parameters, alpha=self.recipe.weight_decay)
            torch._foreach_mul_(self.momenta, self.recipe.momentum)
            torch._foreach_add_(self.momenta, grads)
            # Nesterov: the gradient plus the momentum's next step
            torch._foreach_add_(grads, self.momenta, alpha=self.recipe.momentum)
            torch._foreach_add_(self.parameters, grads, alpha=-rate)
        return loss.detach(), logits.argmax(1).eq(own_labels).sum()


def estimate_seconds(
    backbone: Backbone, images: ImageSet, recipe: Recipe, steps: float, worker: Worker
) -> float:
    """Time a few steps on a copy of a network and return the seconds that `steps` steps would take.

    Of several processes, all must call it.
    """
    trial = _Optimiser(copy_network(backbone), recipe, 1, worker, cross_entropy)
    trial.backbone.train()
    generator = torch.Generator().manual_seed(0)
    batch = min(recipe.batch, len(images))
    pixels = torch.from_numpy(images.images[slice(0, batch)]).to(worker.device)
    labels = torch.from_numpy(images.labels[:batch]).to(worker.device)

    def seconds(count: int) -> float:
        begun = time.monotonic()
        loss, _ = trial.step(recipe.augment(pixels[:count], generator), labels[:count], 0)
        loss.item()
        # the mean, so that all processes take the same decision below
        spent = worker.all_reduce([torch.tensor(time.monotonic() - begun)])[0]
        return float(spent) / worker.world_size

    timing = step("timing a few steps of training")
    with timing if worker.is_main else contextlib.nullcontext():
        few = min(batch, FEW_IMAGES * worker.world_size)
        whole = min(seconds(few) for _ in range(2)) * batch / few
        if TIMED_STEPS * whole < LONGEST_TIMING:
            whole = sorted(seconds(batch) for _ in range(TIMED_STEPS))[TIMED_STEPS // 2]
    return whole * steps


def _announce(seconds: float, steps: int, worker: Worker) -> None:
    """Say how long training will take, and on a slow machine which network would be cheaper."""
    device, processes = worker.device.type, worker.world_size
    together = f" in {processes} processes" if processes > 1 else ""
    text = f"training: {steps} steps, about {duration(seconds)} on {device}{together}"
    if seconds > 7200 and device == "cpu":
        text += (
            "; a narrower network (backbone.width) is cheaper, and backbone.checkpoint=PATH takes "
            "one that is trained already"
        )
    say(text)


def _progress_tensors(optimiser: _Optimiser) -> dict[str, Tensor]:
    weights = {f"network.{n}": tensor for n, tensor in unique_state(optimiser.backbone).items()}
    return weights | {f"momentum.{i}": tensor for i, tensor in enumerate(optimiser.momenta)}


def _fingerprint(recipe: Recipe, seed: int) -> str:
    return json.dumps([asdict(recipe), seed], sort_keys=True)


def _save_progress(work: Path, optimiser: _Optimiser, seed: int, epoch: int, history: dict) -> None:
    """Write weights, momenta and history after an epoch to a file beside, then rename it."""
    recipe = _fingerprint(optimiser.recipe, seed)
    metadata = {"recipe": recipe, "epoch": str(epoch), "history": json.dumps(history)}
    work.mkdir(parents=True, exist_ok=True)
    part = work / "training.part"
    save_tensors(_progress_tensors(optimiser), part, metadata)
    with open(part, "rb") as stream:
        os.fsync(stream.fileno())  # a power cut after the rename must not leave a hollow file
    os.replace(part, work / "training.safetensors")


def _load_progress(work: Path, optimiser: _Optimiser, seed: int) -> tuple[int, dict]:
    """Load what `_save_progress` wrote last; return (epochs done, history), (0, empty) if nothing.

    Another recipe or seed, a damaged file, or a network whose code was changed begin anew.
    """
    nothing = (0, {"loss": [], "accuracy": [], "seconds": []})
    path = work / "training.safetensors"
    if not path.is_file():
        return nothing
    try:
        with safe_open(str(path), framework="pt") as stream:
            metadata = stream.metadata()
        tensors = load_file(str(path))
    except SafetensorError:  # damaged
        return nothing
    shapes = {name: tensor.shape for name, tensor in _progress_tensors(optimiser).items()}
    if metadata["recipe"] != _fingerprint(optimiser.recipe, seed) or shapes != {
        name: tensor.shape for name, tensor in tensors.items()
    }:
        return nothing
    prefix = "network."
    state = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    load_tensors(optimiser.backbone, state, str(path))
    for i, momentum in enumerate(optimiser.momenta):
        momentum.copy_(tensors[f"momentum.{i}"])
    if optimiser.worker.is_main:
        say(f"training goes on after epoch {metadata['epoch']} of {optimiser.recipe.epochs}")
    return int(metadata["epoch"]), json.loads(metadata["history"])
