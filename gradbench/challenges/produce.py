"""Makes challenge images shard by shard, and keeps those that cannot be made again bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from gradbench.backbones.backbone import Backbone
from gradbench.challenges import checked
from gradbench.challenges.base import CleanBatch, Derived
from gradbench.data.imageset import ImageSet, LazyImages, digest_pixels, shards, to_float
from gradbench.store import Key, Store
from gradbench.support.code_keys import stable_name
from gradbench.support.progress import Progress

BATCH = 100
"""Images a pass: fixed, since an attack's last bits depend on the batch."""


@dataclass(frozen=True)
class AttackOutcome:
    """The effect of an attack on every image, (N,) each, after rounding; pixels in [0, 1]."""

    correct: np.ndarray  # the clean image was classified correctly
    success: np.ndarray  # it was, and the attacked one is not
    l2: np.ndarray  # norm of the perturbation
    linf: np.ndarray  # largest change of a pixel


@dataclass(frozen=True)
class ChallengeSetup:
    """A derived challenge at one strength, with everything that its images depend on."""

    challenge: Derived
    name: str  # in rows
    strength: float | tuple[float, ...]
    seed: int = 0
    quantise: bool = True  # round to the 1/255 grid
    network: Backbone | None = None  # f, for attacks
    weights: str = ""  # digest of f, for attacks

    def make(
        self,
        clean: ImageSet,
        rows: np.ndarray,
        compare: bool = False,
        advance: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Return the challenge images of the given rows of the clean set.

        With `compare`, check that images do not depend on each other, see `checked.perturb`;
        `advance` is called with the number of images after every batch.
        """
        device = self.network.device if self.network is not None else torch.device("cpu")
        made = []
        with checked.lend_network(self.challenge, self.name, self.network) as network:
            for part in np.array_split(rows, max(1, -(-len(rows) // BATCH))):
                arrays = (clean.images[part], clean.labels[part], clean.sources[part])
                batch = CleanBatch.from_pixels(*arrays, device, self.quantise)
                grey = checked.perturb(
                    *(self.challenge, self.name, batch, self.strength, self.seed, network),
                    compare=compare and not made,
                )
                made.append(self.challenge.to_pixels(grey, batch))
                if advance:
                    advance(len(part))
        return np.concatenate(made)

    def keys(self, clean: ImageSet) -> list[Key]:
        """Return the keys of the shards."""
        challenge = self.challenge
        config = {
            "class": stable_name(type(challenge)),
            "batch": BATCH if challenge.uses_network else 0,
            "family": challenge.family,
            "strength": self.strength,
            "seed": self.seed,
            "quantise": self.quantise,
            **challenge.settings(),
            **checked.outside_keys(challenge),
        }
        keys = []
        for digest, rows in zip(clean.digests, shards(len(clean))):
            inputs = {"images": digest, "sources": _digest(clean.sources[rows])}
            if challenge.uses_network:
                inputs |= {"weights": self.weights, "labels": _digest(clean.labels[rows])}
            keys.append(Key("challenge", challenge.version, config, inputs))
        return keys


def produce(
    setup: ChallengeSetup, clean: ImageSet, store: Store
) -> tuple[ImageSet, AttackOutcome | None]:
    """Return the challenge made from a clean set, and the outcome of an attack.

    Images of attacks are kept in the store; of others only the digests, since the same bits can
    be made again.
    """
    products, attacks = [], setup.challenge.uses_network
    with Progress(f"making {setup.name}", len(clean)) as progress:
        for key, rows in zip(setup.keys(clean), shards(len(clean))):
            index = np.arange(rows.start, rows.stop)

            def build(folder: Path, _: Path, index: np.ndarray = index) -> dict:
                pixels = setup.make(clean, index, compare=True, advance=progress.advance)
                if attacks:
                    outcome = _outcome(setup.network, clean, index, pixels)
                    arrays = {"images": pixels, **vars(outcome)}
                    save_file(arrays, str(folder / "shard.safetensors"))
                return {"digest": digest_pixels(pixels), "images": len(index)}

            before = progress.done
            products.append(store.make(key, build))
            # what the store had already was not made batch by batch
            progress.advance(len(index) - (progress.done - before))
    paths = [str(product.path("shard.safetensors")) for product in products] if attacks else []

    def read(rows: np.ndarray) -> np.ndarray:
        if not attacks:
            return setup.make(clean, rows)
        out = np.empty((len(rows), *clean.shape), np.uint8 if setup.quantise else np.float32)
        for path, where in zip(paths, shards(len(clean))):
            inside = (rows >= where.start) & (rows < where.stop)
            if inside.any():
                out[inside] = load_file(path)["images"][rows[inside] - where.start]
        return out

    images = LazyImages(
        read,
        clean.images.shape,
        digests=[product.about["digest"] for product in products],
        dtype="uint8" if setup.quantise else "float32",
    )
    off_grid = "" if setup.quantise else "not rounded to the 1/255 grid"
    made = replace(
        clean,
        name=setup.name,
        images=images,
        status=setup.challenge.status,
        note="; ".join(filter(None, [setup.challenge.note, off_grid])),
    )
    if not attacks:
        return made, None
    parts = [load_file(path) for path in paths]
    outcome = {f.name: np.concatenate([p[f.name] for p in parts]) for f in fields(AttackOutcome)}
    return made, AttackOutcome(**outcome)


def _outcome(
    network: Backbone, clean: ImageSet, rows: np.ndarray, pixels: np.ndarray
) -> AttackOutcome:
    def is_correct(images: torch.Tensor) -> np.ndarray:
        with torch.inference_mode():
            logits = [network(part.to(network.device)).cpu() for part in images.split(BATCH)]
        return torch.cat(logits).argmax(1).numpy() == clean.labels[rows]

    before, after = to_float(clean.images[rows]), to_float(pixels)
    change = (after - before).flatten(1)
    correct = is_correct(before)
    l2, linf = change.norm(dim=1).numpy(), change.abs().amax(1).numpy()
    return AttackOutcome(correct, correct & ~is_correct(after), l2, linf)


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256("\n".join(map(str, values.tolist())).encode()).hexdigest()
