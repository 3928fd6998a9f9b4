"""Reads f in several processes, each on a device of its own: the passes of 64 are shared out.

An image is computed by itself and passes hold the same images as in one process, so the numbers
are those of one process, bit for bit where device type and threads of a process are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.backbones.shared_tensors import copy_network
from gradbench.backbones.workers import Worker, WorkerPool
from gradbench.data.imageset import ImageSet
from gradbench.outputs.base import Output
from gradbench.outputs.catalogue import as_outputs
from gradbench.outputs.learned import with_learned
from gradbench.outputs.perturbed import PerturbedPass
from gradbench.outputs.read import BATCH, ComputedOutputs, compute_outputs


class DistributedReader:
    """Workers of a pool that read one network, whose digest is `weights`."""

    def __init__(self, pool: WorkerPool, backbone: Backbone, weights: str):
        self.pool, self.backbone, self.weights = pool, backbone, weights

    def compute(self, images: ImageSet, rows: slice, outputs: list[Output]) -> ComputedOutputs:
        """Compute outputs of some rows of a set, as `compute_outputs` does."""
        outputs = as_outputs(self.backbone, outputs)
        name = self._send(outputs)
        bare = [with_learned(o, {}, o.learned_key) if o.learned else o for o in outputs]
        whole = np.arange(rows.start, rows.stop)
        part = replace(images.select(whole), images=images.images[rows])
        title = f"outputs of {images.name}"
        shares = self.pool.call(title, _compute, name, part, bare)
        faults = {name: fault for share in shares for name, fault in share.faults.items()}
        values = {
            name: torch.cat([share.values[name] for share in shares])
            for name in shares[0].values
            if name not in faults
        }
        return ComputedOutputs(values, sum(share.halvings for share in shares), faults)

    def passes(self, one: PerturbedPass, pixels: Tensor) -> tuple[list[Tensor], int]:
        """Make a perturbed pass over (n, C, H, W) in [0, 1], as its `in_batches` in one process."""
        name = self._send()
        shares = self.pool.call("perturbed passes", _passes, name, one, pixels)
        chunks = [values for part, _ in shares for values in part]
        return chunks, sum(halvings for _, halvings in shares)

    def _send(self, outputs: Sequence[Output] = ()) -> str:
        """Have the workers hold the network, and what outputs learned; return the name of both."""
        learned = {output.name: output.learned for output in outputs if output.learned}
        keys = sorted(output.learned_key for output in outputs if output.learned)
        name = " ".join([self.weights, *keys])
        if not self.pool.holds(name):
            # a tensor on an accelerator would come to the same one in every worker
            self.pool.broadcast(name, (copy_network(self.backbone).cpu(), learned))
        return name


def _backbone(worker: Worker, name: str) -> Backbone:
    return worker.received[name][0].to(worker.device).eval()


def _share(worker: Worker, count: int) -> slice:
    """Return the rows of this process: whole passes, the last of which may be short."""
    passes = worker.shard(-(-count // BATCH))
    return slice(passes.start * BATCH, min(passes.stop * BATCH, count))


def _compute(worker: Worker, name: str, images: ImageSet, outputs: list[Output]):
    learned = worker.received[name][1]
    outputs = [
        with_learned(o, learned[o.name], o.learned_key) if o.name in learned else o for o in outputs
    ]
    rows = _share(worker, len(images))
    computed = None
    if rows.stop > rows.start:
        computed = compute_outputs(_backbone(worker, name), images, rows, outputs)
    return [share for share in worker.gather(computed) if share is not None]


def _passes(worker: Worker, name: str, one: PerturbedPass, pixels: Tensor):
    mine = pixels[_share(worker, len(pixels))]
    return worker.gather(one.in_batches(_backbone(worker, name), mine))
