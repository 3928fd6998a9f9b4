"""Gets the outputs of f for a set of images, shard by shard, from the store where they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.data.imageset import ImageSet, shards
from gradbench.errors import Faulty
from gradbench.outputs.base import Output
from gradbench.outputs.catalogue import as_outputs, built_in
from gradbench.outputs.distributed import DistributedReader
from gradbench.outputs.learned import Lessons
from gradbench.outputs.read import BATCH, ComputedOutputs, compute_outputs
from gradbench.store import Key, Product, Store
from gradbench.support.progress import Progress


class OutputValues(dict[str, Tensor]):
    """Outputs of some images by name, (N, ...); one of `faults` raises it when it is asked for."""

    def __init__(self, values: Mapping[str, Tensor] = (), faults: Mapping[str, str] | None = None):
        super().__init__(values)
        self.faults = dict(faults or {})

    def __missing__(self, name: str) -> Tensor:
        if name in self.faults:
            raise Faulty(self.faults[name])
        raise KeyError(name)

    def select(self, rows) -> OutputValues:
        """Return the values of some rows."""
        index = torch.as_tensor(rows)
        return OutputValues({n: v[index] for n, v in self.items()}, self.faults)

    def join(self, other: OutputValues) -> OutputValues:
        """Return the values of both, these first."""
        both = {n: torch.cat([v, other[n]]) for n, v in self.items() if n in other}
        return OutputValues(both, self.faults | other.faults)


def select_outputs(values: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Return the values of names alone; `layer_means` stands for those of all its layers.

    Raises:
        Faulty: if one of them has a fault.
    """
    selected = {}
    for name in names:
        below = [n for n in values if n.startswith(f"{name}/")] if name not in values else []
        selected |= {n: values[n] for n in below or [name]}
    return selected


def shard_key(output: str | Output, weights: str, images: str) -> Key:
    """Return the key of one output of one shard, from the digests of f and of its pixels."""
    output = built_in().find(output) if isinstance(output, str) else output
    config = {"output": output.name, "dtype": "float32", "batch": BATCH}
    if not isinstance(output.identity, int):
        config |= {k: v for k, v in output.identity.items() if k != "version"}
    return Key(
        "outputs", output.version, config, {"weights": output.weights or weights, "images": images}
    )


def extract(
    backbone: Backbone,
    weights: str,
    images: ImageSet,
    outputs: Iterable[str | Output],
    store: Store,
    also: Iterable[str | Output] = (),
    reader: DistributedReader | None = None,
    lessons: Lessons | None = None,
) -> OutputValues:
    """Return outputs of all images, computing only those that are not kept yet.

    Outputs that are missing for a shard are read off shared passes. `layer_means` stands for one
    output of each layer.

    Args:
        backbone: f in evaluation mode.
        weights: digest of f.
        images: the images that f reads.
        outputs: outputs, or names of gradbench's own.
        store: where shards lie.
        also: outputs that are kept, too, where a pass is made: others will ask for them.
        reader: workers that compute what is missing; none to do it in this process.
        lessons: where outputs learn that do so before they are read.

    Raises:
        GradbenchError: if one of gradbench's outputs is not finite.
    """
    wanted = as_outputs(backbone, outputs)
    names = [output.name for output in wanted]
    also = [output for output in as_outputs(backbone, also) if output.name not in names]
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    faults: dict[str, str] = {}
    with Progress(f"outputs of {images.name} {images.split}".strip(), len(images)) as progress:
        here = partial(compute_outputs, backbone, advance=progress.advance)
        compute = reader.compute if reader else here

        def work(images: ImageSet, rows: slice, missing: list[Output]) -> ComputedOutputs:
            ready, faults = lessons.taught(missing) if lessons else (missing, {})
            done = compute(images, rows, ready)
            return replace(done, faults=done.faults | faults)

        for digest, rows in zip(images.digests, shards(len(images))):
            before = progress.done
            left = [output for output in wanted if output.name not in faults]
            products, new = _shard_products(weights, digest, images, rows, left, store, also, work)
            faults |= {name: fault for name, fault in new.items() if name in parts}
            for name in parts.keys() - faults.keys():
                path = products[name].path("shard.safetensors")
                parts[name].append(load_file(str(path))["values"])
            progress.advance(rows.stop - rows.start - (progress.done - before))
    values = {name: torch.cat(parts[name]) for name in names if name not in faults}
    return OutputValues(values, faults)


def _shard_products(
    weights: str, digest: str, images: ImageSet, rows: slice, outputs: Sequence[Output],
    store: Store, also: Sequence[Output], work: Callable,
) -> tuple[dict[str, Product], dict[str, str]]:  # fmt: skip
    """Return the products of one shard and the faults, computing together what is missing."""
    keys = {output.name: shard_key(output, weights, digest) for output in outputs}
    products = {name: store.get(key) for name, key in keys.items()}
    if all(products.values()):
        return products, {}
    keys |= {output.name: shard_key(output, weights, digest) for output in also}
    with store.lock(f"pass-{weights[:16]}-{digest[:16]}", f"outputs of {images.name}"):
        products = {name: store.get(key) for name, key in keys.items()}
        # another process may have made them while this one waited
        missing = [output for output in (*outputs, *also) if products[output.name] is None]
        if not missing:
            return products, {}
        begun = time.monotonic()
        done = work(images, rows, missing)
        spent = {
            "pass_seconds": round(time.monotonic() - begun, 3),
            "pass": list(done.values),
            "halvings": done.halvings,
        }
        for name, tensor in done.values.items():

            def build(folder: Path, _: Path, tensor: Tensor = tensor) -> dict:
                save_file({"values": tensor}, str(folder / "shard.safetensors"))
                return spent | {"images": len(tensor), "set": f"{images.name}/{images.split}"}

            products[name] = store.make(keys[name], build)
    return products, done.faults
