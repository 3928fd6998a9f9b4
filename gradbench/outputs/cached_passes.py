"""Perturbed passes over images of a set, kept by shard; no image has the same pass twice."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.challenges.counter import image_keys
from gradbench.data.imageset import ImageSet, shards, to_float
from gradbench.errors import GradbenchError
from gradbench.outputs.distributed import DistributedReader
from gradbench.outputs.perturbed import PerturbedPass
from gradbench.outputs.read import BATCH
from gradbench.store import Key, Store, canonical_json
from gradbench.support.code_keys import code_key
from gradbench.support.progress import Progress

STEP = "perturbed"
VERSION = 1


class CachedPasses:
    """Perturbed passes over one set of images by f, whose digest is `weights`.

    `seed` is that of the order in which images are drawn; without a `reader` the passes are made in
    this process.
    """

    def __init__(
        self,
        backbone: Backbone,
        weights: str,
        images: ImageSet,
        store: Store,
        seed: int = 0,
        reader: DistributedReader | None = None,
    ):
        self.reader = reader
        self.backbone, self.weights, self.images, self.store = backbone, weights, images, store
        self.seed, self.threads = seed, torch.get_num_threads()
        self._known: dict[tuple[str, float], dict[int, Tensor]] = {}

    @cached_property
    def order(self) -> np.ndarray:
        """Place of each image in a random order, images of one group beside each other, (N,).

        It depends on names of groups and the seed alone: of two sides with twins, the first
        so-and-so many are twins, and parts that overlap give draws that overlap.
        """
        keys = image_keys(self.seed, "drawn", self.images.groups).numpy()
        place = np.empty(len(keys), dtype=np.int64)
        place[np.argsort(keys, kind="stable")] = np.arange(len(keys))
        return place

    def __call__(self, one: PerturbedPass, rows: np.ndarray) -> Tensor:
        """Return the results of a pass over some rows of the set, (len(rows), magnitudes, D).

        Images that had this pass before have no second one.
        """
        named = canonical_json([one.source, one.loss.settings()])
        known = [self._known.setdefault((named, m), {}) for m in one.magnitudes]
        missing = np.array(sorted(r for r in set(rows.tolist()) if any(r not in k for k in known)))
        if len(missing):
            threads = torch.get_num_threads()
            torch.set_num_threads(self.threads)  # those at first: detectors are fitted on one
            try:
                made = self._shards(one, missing)
            finally:
                torch.set_num_threads(threads)
            for position, values in enumerate(known):
                values.update(zip(missing.tolist(), made[:, position]))
        columns = [torch.stack([values[r] for r in rows.tolist()]) for values in known]
        return torch.stack(columns, dim=1)

    def _shards(self, one: PerturbedPass, rows: np.ndarray) -> Tensor:
        parts = []
        title = f"{self.images.name} {self.images.split}".strip()
        with Progress(f"perturbed passes over {title}", len(rows)) as progress:
            for digest, shard in zip(self.images.digests, shards(len(self.images))):
                mine = rows[(rows >= shard.start) & (rows < shard.stop)]
                if not len(mine):
                    continue
                key = self.key(one, digest, mine - shard.start)

                def build(folder: Path, _: Path, mine: np.ndarray = mine) -> dict:
                    pixels = to_float(self.images.images[mine])
                    if self.reader:
                        chunks, halvings = self.reader.passes(one, pixels)
                    else:
                        chunks, halvings = one.in_batches(self.backbone, pixels, progress.advance)
                    values = torch.cat(chunks).contiguous()
                    if not values.isfinite().all():
                        raise GradbenchError(
                            f"{one.source} of {self.images.name} is not finite after a step of "
                            f"{max(one.magnitudes)}: the network's weights overflow in float32"
                        )
                    save_file({"values": values}, str(folder / "shard.safetensors"))
                    return {"images": len(mine), "halvings": halvings, "set": title}

                before = progress.done
                product = self.store.make(key, build)
                parts.append(load_file(str(product.path("shard.safetensors")))["values"])
                progress.advance(len(mine) - (progress.done - before))
        return torch.cat(parts)

    def key(self, one: PerturbedPass, images: str, rows: np.ndarray) -> Key:
        """Return the key of a pass over ascending rows of a shard whose digest is `images`."""
        config = {
            "source": one.source,
            "loss": {**one.loss.settings(), **code_key(one.loss)},
            "magnitudes": list(one.magnitudes),
            "rows": hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest(),
            "dtype": "float32",
            "batch": BATCH,
        }
        inputs = {"weights": self.weights, "images": images}
        return Key(STEP, VERSION, config, inputs)


def seconds_of_passes(store: Store) -> float:
    """Return the seconds that the passes took which a store object made so far."""
    made = (product for key, (product, new) in store.used.items() if new and key.step == STEP)
    return sum(product.about["seconds"] for product in made)
