"""Gets the outputs of f for a set of images, shard by shard, from the store where they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.data.imageset import ImageSet, shards, to_float
from gradbench.errors import GradbenchError
from gradbench.outputs.feature_layers import expand
from gradbench.outputs.readers import check, read_counting, version_of
from gradbench.store import Key, Product, Store
from gradbench.support.progress import Progress

BATCH = 64
"""Images a pass. Fixed, since the last bits of a product may depend on it."""


def shard_key(name: str, weights: str, images: str) -> Key:
    """Return the key of one output of one shard.

    Args:
        name: of the output.
        weights: digest of f.
        images: digest of the shard's pixels.
    """
    config = {"output": name, "dtype": "float32", "batch": BATCH}
    return Key("outputs", version_of(name), config, {"weights": weights, "images": images})


def extract(
    backbone: Backbone,
    weights: str,
    images: ImageSet,
    names: Iterable[str],
    store: Store,
    also: Iterable[str] = (),
    readers: Reads | None = None,
) -> dict[str, Tensor]:
    """Return the named outputs of all images, computing only those that are not kept yet.

    Outputs that are missing for a shard are read off shared forward passes.

    Args:
        backbone: f in evaluation mode.
        weights: digest of f.
        images: what f looks at.
        names: of the outputs, see `readers`.
        store: where shards lie.
        also: outputs that are kept, too, where a pass is made: others will ask for them.
        readers: workers that compute what is missing; none to do it in this process.

    Returns:
        (N, ...) float32 tensors by name, one for each layer in place of `layer_means`.

    Raises:
        GradbenchError: if an output is not finite.
    """
    names, also = sorted(set(names)), sorted(set(also).difference(names))
    for name in (*names, *also):
        check(name)
    names, also = expand(backbone, names), expand(backbone, also)
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    what = f"{images.name} {images.split}".strip()
    with Progress(f"outputs of {what}", len(images)) as progress:
        for digest, rows in zip(images.digests, shards(len(images))):
            before = progress.done
            products = shard_products(
                backbone, weights, digest, images, rows, names, store, also, readers,
                progress.advance,
            )  # fmt: skip
            for name in names:
                found[name].append(
                    load_file(str(products[name].path("shard.safetensors")))["values"]
                )
            progress.advance(rows.stop - rows.start - (progress.done - before))
    return {name: torch.cat(parts) for name, parts in found.items()}


def shard_products(
    backbone: Backbone,
    weights: str,
    digest: str,
    images: ImageSet,
    rows: slice,
    names: list[str],
    store: Store,
    also: Iterable[str] = (),
    readers: Reads | None = None,
    tell: Callable[[int], None] | None = None,
) -> dict[str, Product]:
    """Return the products of one shard by output, computing those that are missing together.

    `tell` is called with the number of images of each pass that is made in this process.
    """
    work = readers.compute if readers else partial(compute, backbone, tell=tell)
    keys = {name: shard_key(name, weights, digest) for name in names}
    products = {name: store.get(key) for name, key in keys.items()}
    if all(products.values()):
        return products
    keys |= {name: shard_key(name, weights, digest) for name in also}
    with store.lock(f"pass-{weights[:16]}-{digest[:16]}", f"outputs of {images.name}"):
        products = {name: store.get(key) for name, key in keys.items()}
        missing = [name for name, product in products.items() if product is None]
        if missing:
            begun = time.monotonic()
            done = work(images, rows, missing)
            spent = {
                "pass_seconds": round(time.monotonic() - begun, 3),
                "pass": missing,
                "halvings": done.halvings,
            }
            for name in missing:
                tensor = done.values[name]

                def build(folder: Path, _: Path, tensor: Tensor = tensor) -> dict:
                    save_file({"values": tensor}, str(folder / "shard.safetensors"))
                    return spent | {"images": len(tensor), "set": f"{images.name}/{images.split}"}

                products[name] = store.make(keys[name], build)
    return products


@dataclass(frozen=True)
class Computed:
    """Outputs of some images.

    Attributes:
        values: by name, (n, ...) float32.
        halvings: how often a pass was halved because the device's memory did not suffice.
    """

    values: dict[str, Tensor]
    halvings: int


class Reads(Protocol):
    """Workers that read one network, see `together.DistributedReader`."""

    def compute(self, images: ImageSet, rows: slice, names: list[str]) -> Computed:
        """Compute outputs of some rows of a set."""

    def passes(self, what: Callable[..., Tensor], pixels: Tensor) -> tuple[list[Tensor], int]:
        """Make perturbed passes; return their results by chunk, and how often one was halved."""


def compute(
    backbone: Backbone,
    images: ImageSet,
    rows: slice,
    names: list[str],
    tell: Callable[[int], None] | None = None,
) -> Computed:
    """Compute outputs of some rows of a set, without the store.

    `tell` is called with the number of images after every pass.

    Raises:
        GradbenchError: if an output is not finite.
    """
    parts: dict[str, list[Tensor]] = {name: [] for name in expand(backbone, names)}
    halvings = 0
    waiting = [slice(i, min(i + BATCH, rows.stop)) for i in range(rows.start, rows.stop, BATCH)]
    while waiting:
        batch = waiting.pop(0)
        try:
            pixels = to_float(images.images[batch]).to(backbone.device)
            found, halved = read_counting(backbone, pixels, names)
        except torch.OutOfMemoryError:
            if batch.stop - batch.start == 1:
                raise
            middle = (batch.start + batch.stop) // 2
            waiting[:0] = [slice(batch.start, middle), slice(middle, batch.stop)]
            halvings += 1
            continue
        halvings += halved
        for name, tensor in found.items():
            parts[name].append(tensor)
        if tell:
            tell(len(pixels))
    values = {name: torch.cat(tensors).contiguous() for name, tensors in parts.items()}
    for name, tensor in values.items():
        if not torch.isfinite(tensor).all():
            raise GradbenchError(
                f"{name} of {images.name} is not finite: the network's weights or the images "
                "hold values that overflow in float32"
            )
    return Computed(values, halvings)
