"""Step 1: the trained network f, loaded from a checkpoint, found in the store, or trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from gradbench.backbones import checkpoint
from gradbench.backbones.backbone import Backbone, digest
from gradbench.backbones.build import build_network, network_config
from gradbench.backbones.checked import in_a_sentence, try_out
from gradbench.backbones.recipe import Recipe
from gradbench.backbones.together import train_together
from gradbench.backbones.training import train
from gradbench.backbones.worker_pool import WorkerPool
from gradbench.data.imageset import ImageSet
from gradbench.errors import GradbenchError
from gradbench.store import Key, Product, Store
from gradbench.support.instantiate import behind
from gradbench.support.progress import step
from gradbench.support.sources import source_key, stable_config

VERSION = 1


@dataclass(frozen=True)
class Network:
    """A trained network and what is known of it.

    Attributes:
        backbone: in evaluation mode, on its device.
        weights: digest of structure, weights and normalisation.
        origin: `trained`, or the checkpoint's file name and what of it was passed over.
        seed: of its training, None where that is not known.
        history: loss, accuracy and seconds of each epoch, empty if not trained here.
        trained_on: fingerprints of its training images and of the hold-out (`train`, `hold_out`),
            empty where they are not known.
    """

    backbone: Backbone
    weights: str
    origin: str
    seed: int | None
    history: Mapping[str, list[float]]
    trained_on: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Order:
    """What step 1 is asked for.

    Attributes:
        config: content of the file in `configs/backbone/`.
        recipe: of training.
        seed: of weights, order and augmentation.
        mean: of the channels, in [0, 1].
        std: of the channels, in [0, 1].
        device: to train and run on.
    """

    config: Mapping[str, Any]
    recipe: Recipe
    seed: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device

    def network_config(self, train: ImageSet) -> dict[str, Any]:
        """Return class path and arguments of the network for a training set."""
        return network_config(self.config, len(class_names(train)), train.shape[0])

    def key(self, train: ImageSet) -> Key:
        """Return the key of the trained network."""
        config = {
            "network": stable_config(self.network_config(train)),
            "recipe": asdict(self.recipe),
            "seed": self.seed,
            "mean": list(self.mean),
            "std": list(self.std),
            **source_key(*behind(self.config["_target_"])),
        }
        return Key("network", VERSION, config, {"images": train.fingerprint})


def class_names(images: ImageSet) -> tuple[str, ...]:
    """Return the names of the labels, their numbers where the set has no names."""
    return images.classes or tuple(map(str, range(int(images.labels.max()) + 1)))


def obtain(
    order: Order,
    train_images: ImageSet,
    test: ImageSet,
    store: Store,
    pool: WorkerPool | None = None,
    hold_out: ImageSet | None = None,
) -> Network:
    """Return the network that is asked for.

    Args:
        order: what is asked for.
        train_images: training images without the hold-out.
        test: clean test images, of which one is tried.
        store: where trained networks lie.
        pool: workers that train together; none to train in this process.
        hold_out: what is kept from it, noted beside the weights.

    Raises:
        GradbenchError: if a checkpoint does not fit, or training diverges.
    """
    backbone = fresh(order, train_images).eval()
    try_out(backbone, test)
    path = order.config.get("checkpoint")
    history: dict[str, list[float]] = {}
    trained_with: int | None = order.seed
    origin = "trained"
    if path:
        about = _load(backbone, path)
        trained_with, prints = about.get("seed"), own_prints(about)
        note = about.get("note")
        origin = Path(path).name + (f" ({note})" if note else "")
    else:
        prints = {"train": train_images.fingerprint}
        prints |= {"hold_out": hold_out.fingerprint} if hold_out is not None else {}
        build = _trainer(order, backbone, train_images, pool, prints)
        history = _take(backbone, store.make(order.key(train_images), build))
    backbone.to(order.device).eval()
    try_out(backbone, test, tell=False)
    return Network(backbone, digest(backbone), origin, trained_with, history, prints)


def own_prints(about: Mapping[str, Any]) -> dict[str, str]:
    """Return what a checkpoint's description tells of its training images, see `Network`."""
    said = about.get("trained_on") if isinstance(about, Mapping) else None
    said = said if isinstance(said, Mapping) else {}
    return {name: said[name] for name in ("train", "hold_out") if isinstance(said.get(name), str)}


def fresh(order: Order, train_images: ImageSet) -> Backbone:
    """Return the network with the initial weights of its seed."""
    torch.manual_seed(order.seed)
    config = order.network_config(train_images)
    network = build_network(config)
    names = class_names(train_images)
    layers = order.config.get("feature_layers")
    return Backbone(network, order.mean, order.std, names, train_images.shape, config, layers)


def find(order: Order, train_images: ImageSet, store: Store) -> Backbone | None:
    """Return the trained network if a checkpoint is named or the store has it, else None."""
    backbone = fresh(order, train_images)
    if order.config.get("checkpoint"):
        _load(backbone, order.config["checkpoint"])
    else:
        product = store.get(order.key(train_images))
        if product is None:
            return None
        _take(backbone, product)
    return backbone.to(order.device).eval()


def _load(backbone: Backbone, path: str) -> dict[str, Any]:
    """Load a checkpoint and return its description.

    Class names and normalisation, where it tells them, must be those of the data set.
    """
    with step(f"loading {path}"):
        about = checkpoint.load_into(backbone.network, path)
    own, given = list(backbone.classes), about.get("classes") or []
    if given and own != given and not all(name.isdigit() for name in (*own, *given)):
        raise GradbenchError(
            f"backbone.checkpoint={path} was trained for the classes {', '.join(given[:5])}…, the "
            f"data set has {', '.join(own[:5])}…"
        )
    for name in ("mean", "std"):
        own, given = getattr(backbone, name).flatten().tolist(), about.get(name)
        if given and not np.allclose(own, given, atol=1e-4):
            raise GradbenchError(
                f"backbone.checkpoint={path} was trained with {name} {given}, the data set has "
                f"{[round(v, 4) for v in own]}: set dataset.{name} to the former"
            )
    return about


def _take(backbone: Backbone, product: Product) -> dict[str, list[float]]:
    path = product.path("network.safetensors")
    with step("loading the trained network"):
        checkpoint.restore(backbone.network, load_file(str(path)), str(path))
    return json.loads(product.path("history.json").read_text())


def _trainer(
    order: Order,
    backbone: Backbone,
    images: ImageSet,
    pool: WorkerPool | None,
    prints: Mapping[str, str],
):
    def build(folder: Path, scratch: Path) -> dict:
        width, less = order.config.get("width"), order.config.get("narrower")
        narrower = f"backbone.width={less}" if width and less and width > less else ""
        what = (backbone, images, order.recipe, order.seed, scratch)
        with in_a_sentence(backbone):
            if pool:
                history = train_together(pool, *what, narrower)
            else:
                history = train(*what, order.device, narrower)
        about = {
            "recipe": asdict(order.recipe),
            "seed": order.seed,
            "classes": backbone.classes,
            "mean": list(order.mean),
            "std": list(order.std),
            "trained_on": prints,
        }
        checkpoint.save(folder / "network.safetensors", backbone.network, about)
        (folder / "history.json").write_text(json.dumps(history, indent=1))
        told = {"epochs": len(history["loss"]), "training_seconds": sum(history["seconds"])}
        return told | ({"devices": len(pool)} if pool else {})

    return build
