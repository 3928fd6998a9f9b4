"""Reads f in several processes, each on a device of its own: the passes of 64 are shared out.

An image is computed by itself and passes hold the same images as in one process, so the numbers
are those of one process, bit for bit where device type and threads of a process are the same.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.backbones.shared_tensors import copy_network
from gradbench.backbones.workers import Worker, WorkerPool
from gradbench.data.imageset import ImageSet
from gradbench.gradients.memory import in_chunks
from gradbench.outputs.extract import BATCH, Computed, compute
from gradbench.outputs.perturbed import PerturbedPass


class DistributedReader:
    """Workers that read one network.

    Args:
        pool: the workers.
        backbone: f in evaluation mode.
        weights: digest of f.
    """

    def __init__(self, pool: WorkerPool, backbone: Backbone, weights: str):
        self.pool, self.backbone, self.weights = pool, backbone, weights

    def compute(self, images: ImageSet, rows: slice, names: list[str]) -> Computed:
        """Compute outputs of some rows of a set, as `extract.compute` does."""
        self._give()
        whole = np.arange(rows.start, rows.stop)
        part = replace(images.select(whole), images=images.images[rows])
        found = self.pool.call(f"outputs of {images.name}", _compute, self.weights, part, names)
        values = {n: torch.cat([one.values[n] for one in found]) for n in found[0].values}
        return Computed(values, sum(one.halvings for one in found))

    def passes(self, what: PerturbedPass, pixels: Tensor) -> tuple[list[Tensor], int]:
        """Make perturbed passes over (n, C, H, W) in [0, 1], as `in_chunks` does in one process."""
        self._give()
        found = self.pool.call("perturbed passes", _passes, self.weights, what, pixels)
        return [values for one, _ in found for values in one], sum(halved for _, halved in found)

    def _give(self) -> None:
        if not self.pool.holds(self.weights):
            # a tensor on an accelerator would come to the same one in every worker
            self.pool.broadcast(self.weights, copy_network(self.backbone).cpu())


def _backbone(worker: Worker, weights: str) -> Backbone:
    return worker.received[weights].to(worker.device).eval()


def _own(worker: Worker, count: int) -> slice:
    """Return the rows of this process: whole passes, the last of which may be short."""
    passes = worker.shard(-(-count // BATCH))
    return slice(passes.start * BATCH, min(passes.stop * BATCH, count))


def _compute(worker: Worker, weights: str, images: ImageSet, names: list[str]) -> list[Computed]:
    rows = _own(worker, len(images))
    own = None
    if rows.stop > rows.start:
        own = compute(_backbone(worker, weights), images, rows, names)
    return [one for one in worker.gather(own) if one is not None]


def _passes(worker: Worker, weights: str, what: PerturbedPass, pixels: Tensor):
    backbone = _backbone(worker, weights)
    own = in_chunks(
        lambda batch: what(backbone, batch.to(worker.device)),
        pixels[_own(worker, len(pixels))],
        BATCH,
    )
    return worker.gather(own)
