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

from gradbench.backbones.backbone import Backbone, digest
from gradbench.backbones.build import build_network, network_config
from gradbench.backbones.checkpoint import load_checkpoint, load_tensors, save_checkpoint
from gradbench.backbones.output_check import check_outputs, network_faults
from gradbench.backbones.published import PUBLISHED, check_published, describe_origin
from gradbench.backbones.recipe import Recipe
from gradbench.backbones.training import train, train_distributed
from gradbench.backbones.workers import Worker, WorkerPool
from gradbench.data.imageset import ImageSet
from gradbench.errors import GradbenchError
from gradbench.store import Key, Product, Store
from gradbench.support.code_keys import code_key, stable_config
from gradbench.support.instantiate import imported_targets
from gradbench.support.progress import step

VERSION = 1


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network, in evaluation mode on its device, and what is known of it.

    Attributes:
        weights: digest of structure, weights and normalisation.
        origin: `trained`, or the checkpoint's file name, what of it was passed over, and who
            published it where the catalogue knows that.
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
class NetworkRequest:
    """A request for a trained network.

    `config` is the content of its file in `configs/backbone/`, `seed` that of weights, order and
    augmentation, `mean` and `std` are of the channels, in [0, 1].
    """

    config: Mapping[str, Any]
    recipe: Recipe
    seed: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device

    def network_config(self, train_images: ImageSet) -> dict[str, Any]:
        """Return class path and arguments of the network for a training set."""
        return network_config(self.config, len(class_names(train_images)), train_images.shape[0])

    def key(self, train_images: ImageSet) -> Key:
        """Return the key of the trained network."""
        recipe = asdict(self.recipe)
        if not recipe["reduced"]:  # keys of networks are those from before this setting
            del recipe["reduced"]
        config = {
            "network": stable_config(self.network_config(train_images)),
            "recipe": recipe,
            "seed": self.seed,
            "mean": list(self.mean),
            "std": list(self.std),
            **code_key(*imported_targets(self.config["_target_"])),
        }
        return Key("network", VERSION, config, {"images": train_images.fingerprint})


def class_names(images: ImageSet) -> tuple[str, ...]:
    """Return the names of the labels, their numbers where the set has no names."""
    return images.classes or tuple(map(str, range(int(images.labels.max()) + 1)))


def trained_fingerprints(about: Mapping[str, Any]) -> dict[str, str]:
    """Return `TrainedNetwork.trained_on` as far as a checkpoint's description records it."""
    recorded = about.get("trained_on")
    if not isinstance(recorded, Mapping):  # the file may be anybody's
        return {}
    names = ("train", "hold_out")
    return {name: recorded[name] for name in names if isinstance(recorded.get(name), str)}


def initial_network(request: NetworkRequest, train_images: ImageSet) -> Backbone:
    """Return the network with the initial weights of its seed."""
    torch.manual_seed(request.seed)
    config = request.network_config(train_images)
    return Backbone(
        build_network(config),
        request.mean,
        request.std,
        class_names(train_images),
        train_images.shape,
        config,
        request.config.get("feature_layers"),
    )


def find_network(request: NetworkRequest, train_images: ImageSet, store: Store) -> Backbone | None:
    """Return the trained network if a checkpoint is named or the store has it, else None."""
    backbone = initial_network(request, train_images)
    if request.config.get("checkpoint"):
        _load_named(backbone, request.config)
    elif product := store.get(request.key(train_images)):
        _load_product(backbone, product)
    else:
        return None
    return backbone.to(request.device).eval()


def load_or_train(
    request: NetworkRequest,
    train_images: ImageSet,
    test: ImageSet,
    store: Store,
    pool: WorkerPool | None = None,
    hold_out: ImageSet | None = None,
) -> TrainedNetwork:
    """Return the network of a request: from its checkpoint, from the store, or trained.

    Args:
        request: the network's configuration and how it is trained.
        train_images: training images without the hold-out.
        test: clean test images, of which a few are tried.
        store: where trained networks lie.
        pool: workers that train together; none to train in this process.
        hold_out: the images kept from it, noted beside the weights.

    Raises:
        GradbenchError: if a checkpoint does not fit, or training diverges.
    """
    backbone = initial_network(request, train_images).eval()
    check_outputs(backbone, test)
    if path := request.config.get("checkpoint"):
        about = _load_named(backbone, request.config)
        facts = [about["note"]] if about.get("note") else []
        if request.config.get(PUBLISHED):
            facts.append(describe_origin(request.config))
        note = f" ({'; '.join(facts)})" if facts else ""
        origin, seed, history = Path(path).name + note, about.get("seed"), {}
        fingerprints = trained_fingerprints(about)
    else:
        fingerprints = {"train": train_images.fingerprint}
        fingerprints |= {"hold_out": hold_out.fingerprint} if hold_out is not None else {}

        def build(folder: Path, scratch: Path) -> dict[str, Any]:
            arguments = (backbone, train_images, request.recipe, request.seed, scratch)
            with network_faults(backbone):
                if pool:
                    history = train_distributed(pool, *arguments)
                else:
                    history = train(*arguments, Worker(request.device))
            about = {
                "recipe": asdict(request.recipe),
                "seed": request.seed,
                "classes": backbone.classes,
                "mean": list(request.mean),
                "std": list(request.std),
                "trained_on": fingerprints,
            }
            save_checkpoint(folder / "network.safetensors", backbone.network, about)
            (folder / "history.json").write_text(json.dumps(history, indent=1))
            noted = {"epochs": len(history["loss"]), "training_seconds": sum(history["seconds"])}
            return noted | ({"devices": len(pool)} if pool else {})

        history = _load_product(backbone, store.make(request.key(train_images), build))
        origin, seed = "trained", request.seed
    backbone.to(request.device).eval()
    check_outputs(backbone, test)
    return TrainedNetwork(backbone, digest(backbone), origin, seed, history, fingerprints)


def _load_named(backbone: Backbone, config: Mapping[str, Any]) -> dict[str, Any]:
    """Load the checkpoint that a backbone's configuration names and return its description.

    Class names and normalisation, where it records them, must be those of the data set; a
    published file must be the one that was published.
    """
    path = config["checkpoint"]
    with step(f"loading {path}"):
        if entry := config.get(PUBLISHED):
            check_published(entry, path)
        about = load_checkpoint(backbone.network, path)
    own, theirs = list(backbone.classes), about.get("classes") or []
    if theirs and own != theirs and not all(name.isdigit() for name in (*own, *theirs)):
        raise GradbenchError(
            f"backbone.checkpoint={path} was trained for the classes {', '.join(theirs[:5])}…, the "
            f"data set has {', '.join(own[:5])}…"
        )
    for name in ("mean", "std"):
        own, theirs = getattr(backbone, name).flatten().tolist(), about.get(name)
        if theirs and not np.allclose(own, theirs, atol=1e-4):
            raise GradbenchError(
                f"backbone.checkpoint={path} was trained with {name} {theirs}, the data set has "
                f"{[round(v, 4) for v in own]}: set dataset.{name} to the former"
            )
    return about


def _load_product(backbone: Backbone, product: Product) -> dict[str, list[float]]:
    """Load a network of the store and return its history."""
    path = product.path("network.safetensors")
    with step("loading the trained network"):
        load_tensors(backbone.network, load_file(str(path)), str(path))
    return json.loads(product.path("history.json").read_text())
