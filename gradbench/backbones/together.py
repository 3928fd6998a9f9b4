"""Trains one network in several processes, each on a device of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gradbench.backbones.backbone import Backbone
from gradbench.backbones.checkpoint import restore
from gradbench.backbones.recipe import Recipe
from gradbench.backbones.shared_norm import share_statistics
from gradbench.backbones.sharing import state_of
from gradbench.backbones.training import train
from gradbench.backbones.worker import Worker
from gradbench.backbones.worker_pool import WorkerPool
from gradbench.data.imageset import ImageSet


def train_together(
    pool: WorkerPool,
    backbone: Backbone,
    images: ImageSet,
    recipe: Recipe,
    seed: int,
    work: Path,
    narrower: str = "",
) -> dict:
    """Train a backbone as `training.train` does, the batch shared out among the workers.

    The batch, its learning rate and its batch-norm statistics are those of one process, so the
    number of workers is no part of what the network is; a training that was stopped goes on with
    any number of them.

    Args:
        pool: the workers.
        backbone: the network with its initial weights; it gets the trained ones.
        images: training images, without the hold-out.
        recipe: how; its batch holds at least one image a worker.
        seed: of order, crops and flips.
        work: folder of the checkpoint, which rank 0 writes.
        narrower: override that names a cheaper network.

    Raises:
        GradbenchError: if training diverges, or a worker dies or raises.
    """
    images = replace(images, images=images.images[slice(None)])
    arguments = (backbone, images, recipe, seed, work, narrower)
    weights, history = pool.call("training", _train, *arguments)
    restore(backbone.network, weights, "training")
    return history


def _train(worker: Worker, backbone, images, recipe, seed, work, narrower):
    share_statistics(backbone.network, worker.device)
    history = train(backbone, images, recipe, seed, work, worker.device, narrower, worker)
    return {n: t.cpu() for n, t in state_of(backbone.network).items()}, history
