"""Training of f: SGD with Nesterov momentum, resumable after every epoch.

All randomness is drawn on the CPU from the seed and the number of the epoch, and the learning
rate is a function of the step alone, so a run that was killed ends in the weights of an
undisturbed one.

Several processes may train together: each draws the order and the augmentation of the whole batch
and takes its share of the images, gradients and the statistics of batch norm are those of the whole
batch. The number of processes then changes the sum's rounding and nothing else, as another kind of
hardware does, except for networks that draw random numbers themselves (dropout).
"""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from gradbench.backbones.augment import crop, flip
from gradbench.backbones.backbone import Backbone
from gradbench.backbones.recipe import Recipe, autocast
from gradbench.backbones.resume import keep, resume
from gradbench.backbones.sharing import check_separate, copied, move
from gradbench.backbones.worker import Worker, alone
from gradbench.data.imageset import ImageSet, to_float
from gradbench.errors import GradbenchError
from gradbench.support.progress import Progress, duration, say, step

PROBE = 5
"""Steps that are timed before the remaining hours are told."""
ENOUGH = 10.0
"""Seconds that they may take; otherwise a step of a few images is timed."""
FEW = 8
"""Images of a process in such a step."""


def train(
    backbone: Backbone,
    images: ImageSet,
    recipe: Recipe,
    seed: int,
    work: Path,
    device: torch.device,
    narrower: str = "",
    worker: Worker | None = None,
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
        worker: this process among several that train together; none if it is alone.

    Returns:
        History: a dict with a list of `loss`, `accuracy` and `seconds` for each epoch.

    Raises:
        GradbenchError: if the loss stops being finite, or a parameter shares memory with another
            tensor.
    """
    worker = worker or alone(device)
    network = backbone
    check_separate(network.network)
    move(network, device)
    move(network, memory_format=torch.channels_last)
    precision = autocast(recipe, device)
    pixels = torch.from_numpy(images.images[slice(None)])
    labels = torch.from_numpy(images.labels)
    if device.type == "cuda":
        pixels, labels = pixels.to(device), labels.to(device)
    parameters = _trained(network)
    momenta = [torch.zeros_like(p) for p in parameters]
    first, history = resume(work, network, momenta, recipe, seed, tell=worker.first)
    # the last images of an epoch that do not fill a batch wait for another epoch
    steps = max(len(images) // recipe.batch, 1)
    total = recipe.epochs * steps
    state = _Steps(network, parameters, momenta, recipe, total, precision, worker)

    if first < recipe.epochs:
        left = (recipe.epochs - first) * steps
        seconds = seconds_left(backbone, images, recipe, device, left, worker)
        if worker.first:
            _tell_time(seconds, left, device, narrower, worker.of)
    with Progress("training", total, "steps", done=first * steps, shown=worker.first) as progress:
        for epoch in range(first, recipe.epochs):
            begun = time.monotonic()
            # for networks that draw numbers themselves, others in each process
            torch.manual_seed(seed * 1_000_003 + epoch + worker.rank * 500_009)
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
            loss_sum, right = worker.sums([loss_sum, right])
            history["loss"].append(loss_sum.item() / steps)
            history["accuracy"].append(right.item() / (steps * min(recipe.batch, len(images))))
            history["seconds"].append(round(time.monotonic() - begun, 2))
            if not math.isfinite(history["loss"][-1]):
                raise GradbenchError(
                    f"training diverged in epoch {epoch + 1}: the loss is not finite; "
                    f"try a smaller training.lr than {recipe.lr}"
                )
            if not worker.first:
                continue
            keep(work, network, momenta, recipe, seed, epoch + 1, history)
            if history["seconds"][-1] > 10:
                say(
                    f"epoch {epoch + 1} of {recipe.epochs}: loss {history['loss'][-1]:.4f}, "
                    f"training accuracy {100 * history['accuracy'][-1]:.2f} %, "
                    f"{history['seconds'][-1]:.0f} s"
                )
    move(network, memory_format=torch.contiguous_format)
    network.eval()
    return history


def _trained(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters to train, each once whatever names it has."""
    found = [p for p in network.parameters() if p.requires_grad]
    if not found:
        raise GradbenchError(
            "the backbone has no parameter that could be trained (with requires_grad)"
        )
    return found


def augmented(pixels: Tensor, recipe: Recipe, draw: torch.Generator) -> Tensor:
    """Return uint8 images (B, C, H, W) as floats in [0, 1], cropped and mirrored at random."""
    pixels = crop(pixels, recipe.pad, draw)
    if recipe.flip:
        pixels = flip(pixels, draw)
    return to_float(pixels).contiguous(memory_format=torch.channels_last)


class _Steps:
    """One optimiser step at a time; the rate depends on the number of the step alone."""

    def __init__(self, network, parameters, momenta, recipe: Recipe, total: int, autocast, worker):
        self.network, self.parameters, self.momenta = network, parameters, momenta
        self.recipe, self.total, self.autocast, self.worker = recipe, total, autocast, worker

    def step(self, images: Tensor, labels: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Make a step on a batch; return this process's part of its mean loss and of its hits."""
        mine = self.worker.share(len(images))
        images, own = images[mine], labels[mine]
        with self.autocast():
            logits = self.network(images)
        loss = nn.functional.cross_entropy(logits.float(), own)
        if not loss.requires_grad:
            raise GradbenchError(
                "the backbone cannot be trained: its outputs have no autograd graph, since its "
                "forward runs under torch.no_grad or inference_mode, detaches, or uses no parameter"
            )
        if len(own) < len(labels):
            loss = loss * (len(own) / len(labels))
        grads = self.worker.sums(torch.autograd.grad(loss, self.parameters, materialize_grads=True))
        with torch.no_grad():
            rate, mu = self.recipe.rate(number / self.total), self.recipe.momentum
            grads = torch._foreach_add(grads, self.parameters, alpha=self.recipe.weight_decay)
            torch._foreach_mul_(self.momenta, mu)
            torch._foreach_add_(self.momenta, grads)
            # Nesterov: the gradient plus the momentum's next step
            torch._foreach_add_(grads, self.momenta, alpha=mu)
            torch._foreach_add_(self.parameters, grads, alpha=-rate)
        return loss.detach(), logits.argmax(1).eq(own).sum()


def seconds_left(
    backbone: Backbone,
    images: ImageSet,
    recipe: Recipe,
    device: torch.device,
    steps: int,
    worker: Worker | None = None,
) -> float:
    """Time a few steps on a copy of a network and return what `steps` steps would take.

    Of several processes, all must call it.
    """
    worker = worker or alone(device)
    network = copied(backbone)
    move(network, device)
    move(network, memory_format=torch.channels_last)
    network.train()
    parameters = _trained(network)
    momenta = [torch.zeros_like(p) for p in parameters]
    trial = _Steps(network, parameters, momenta, recipe, steps, autocast(recipe, device), worker)
    draw = torch.Generator().manual_seed(0)
    batch = min(recipe.batch, len(images))
    pixels = torch.from_numpy(images.images[slice(0, batch)]).to(device)
    labels = torch.from_numpy(images.labels[:batch]).to(device)

    def spent(count: int) -> float:
        begun = time.monotonic()
        loss, _ = trial.step(augmented(pixels[:count], recipe, draw), labels[:count], 0)
        loss.item()
        # of several processes all must come to the same end
        return float(worker.sums([torch.tensor(time.monotonic() - begun)])[0]) / worker.of

    with step("timing a few steps of training") if worker.first else contextlib.nullcontext():
        few = min(batch, FEW * worker.of)
        whole = min(spent(few) for _ in range(2)) * batch / few
        if PROBE * whole < ENOUGH:
            whole = sorted(spent(batch) for _ in range(PROBE))[PROBE // 2]
    return whole * steps


def _tell_time(
    seconds: float, steps: int, device: torch.device, narrower: str, processes: int = 1
) -> None:
    """Tell what training will take, and on a slow machine what would be cheaper."""
    together = f" in {processes} processes" if processes > 1 else ""
    text = f"training: {steps} steps, about {duration(seconds)} on {device.type}{together}"
    if seconds > 7200 and device.type == "cpu":
        text += (
            f"; {narrower + ' is cheaper, and ' if narrower else ''}"
            "backbone.checkpoint=PATH takes a network that is trained already"
        )
    say(text)
