"""Makes challenge images shard by shard, and keeps what cannot be made again bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from gradbench.backbones.backbone import Backbone
from gradbench.challenges import checked
from gradbench.challenges.base import Derived, clean_batch
from gradbench.data.imageset import ImageSet, LazyImages, digest_pixels, shards, to_float
from gradbench.store import Key, Store
from gradbench.support.progress import Progress
from gradbench.support.sources import stable_name

BATCH = 100
"""Images a pass: fixed, since it is part of what an attack gives bit for bit."""


@dataclass(frozen=True)
class Attack:
    """What an attack did, after rounding.

    Attributes:
        correct: (N,) bool, the clean image was classified correctly.
        success: (N,) bool, it was, and the attacked one is not.
        l2: (N,) L2 norm of the perturbation, pixels in [0, 1].
        linf: (N,) largest change of a pixel, pixels in [0, 1].
    """

    correct: np.ndarray
    success: np.ndarray
    l2: np.ndarray
    linf: np.ndarray


@dataclass(frozen=True)
class Source:
    """Everything that a derived challenge at one level depends on.

    Attributes:
        challenge: what is done.
        name: of the challenge in rows.
        strength: of the level.
        seed: of its random numbers.
        quantise: round to the 1/255 grid.
        network: f, for attacks.
        weights: digest of f, for attacks.
    """

    challenge: Derived
    name: str
    strength: float | tuple[float, ...]
    seed: int = 0
    quantise: bool = True
    network: Backbone | None = None
    weights: str = ""

    def make(
        self,
        clean: ImageSet,
        rows: np.ndarray,
        look: bool = False,
        advance: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Return the challenge images of the given rows of the clean set.

        Args:
            clean: the clean set.
            rows: of it.
            look: also look whether images depend on each other, see `checked.perturb`.
            advance: called with the number of images after every batch.

        Raises:
            Faulty: if a class from outside does not what a challenge must.
        """
        device = self.network.device if self.network is not None else torch.device("cpu")
        made = []
        with checked.lent(self.challenge, self.name, self.network) as network:
            for part in np.array_split(rows, max(1, -(-len(rows) // BATCH))):
                about = clean.labels[part], clean.sources[part]
                batch = clean_batch(clean.images[part], *about, device, self.quantise)
                first = look and not made
                how = (self.strength, self.seed, network, first)
                grey = checked.perturb(self.challenge, self.name, batch, *how)
                made.append(checked.pixels(self.challenge, self.name, grey, batch))
                if advance:
                    advance(len(part))
        return np.concatenate(made)

    def keys(self, clean: ImageSet) -> list[Key]:
        """Return the keys of the shards."""
        challenge = self.challenge
        keys = []
        for digest, rows in zip(clean.digests, shards(len(clean))):
            inputs = {"images": digest, "sources": _digest(clean.sources[rows])}
            if challenge.uses_network:
                inputs |= {"weights": self.weights, "labels": _digest(clean.labels[rows])}
            config = {
                "class": stable_name(type(challenge)),
                "batch": BATCH if challenge.uses_network else 0,
                "family": challenge.family,
                "strength": self.strength,
                "seed": self.seed,
                "quantise": self.quantise,
                **challenge.settings(),
                **checked.in_keys(challenge),
            }
            keys.append(Key("challenge", challenge.version, config, inputs))
        return keys


def produce(source: Source, clean: ImageSet, store: Store) -> tuple[ImageSet, Attack | None]:
    """Return the challenge made from a clean set, and for attacks what it did.

    Images of attacks are kept in the store; of others only the digests, since the same bits can
    be made again.

    Args:
        source: what is done, and with what.
        clean: uint8 images.
        store: where products lie.
    """
    keys, ranges = source.keys(clean), shards(len(clean))
    products = []
    with Progress(f"making {source.name}", len(clean)) as progress:
        for key, rows in zip(keys, ranges):
            index = np.arange(rows.start, rows.stop)

            def build(folder: Path, _: Path, index: np.ndarray = index) -> dict:
                pixels = source.make(clean, index, look=True, advance=progress.advance)
                if source.challenge.uses_network:
                    done = _measure(source, clean, index, pixels)
                    save_file({"images": pixels, **vars(done)}, str(folder / "shard.safetensors"))
                return {"digest": digest_pixels(pixels), "images": len(index)}

            before = progress.done
            products.append(store.make(key, build))
            progress.advance(len(index) - (progress.done - before))
    images = LazyImages(
        _reader(source, clean, products),
        clean.images.shape,
        digests=[p.about["digest"] for p in products],
        dtype="uint8" if source.quantise else "float32",
    )
    off_grid = "" if source.quantise else "not rounded to the 1/255 grid"
    made = replace(
        clean,
        name=source.name,
        images=images,
        status=source.challenge.status,
        note="; ".join(filter(None, [source.challenge.note, off_grid])),
    )
    if not source.challenge.uses_network:
        return made, None
    parts = [load_file(str(p.path("shard.safetensors"))) for p in products]
    join = {n: np.concatenate([p[n] for p in parts]) for n in ("correct", "success", "l2", "linf")}
    return made, Attack(**join)


def _reader(source: Source, clean: ImageSet, products: list):
    def read(rows: np.ndarray) -> np.ndarray:
        if not source.challenge.uses_network:
            return source.make(clean, rows)
        out = np.empty((len(rows), *clean.shape), np.uint8 if source.quantise else np.float32)
        for number, where in enumerate(shards(len(clean))):
            mine = (rows >= where.start) & (rows < where.stop)
            if mine.any():
                kept = load_file(str(products[number].path("shard.safetensors")))["images"]
                out[mine] = kept[rows[mine] - where.start]
        return out

    return read


def _measure(source: Source, clean: ImageSet, rows: np.ndarray, pixels: np.ndarray) -> Attack:
    before, after = to_float(clean.images[rows]), to_float(pixels)
    changed = (after - before).flatten(1)
    right = [_right(source.network, images, clean.labels[rows]) for images in (before, after)]
    return Attack(
        correct=right[0],
        success=right[0] & ~right[1],
        l2=changed.norm(dim=1).numpy(),
        linf=changed.abs().amax(1).numpy(),
    )


def _right(network: Backbone, images: torch.Tensor, labels: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        parts = [network(part.to(network.device)).argmax(1).cpu() for part in images.split(BATCH)]
    return torch.cat(parts).numpy() == labels


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256("\n".join(map(str, values.tolist())).encode()).hexdigest()
