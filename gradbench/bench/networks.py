"""The network and the images of a benchmark, made alike in every process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from gradbench.backbones.build import build_network, network_config
from gradbench.bench.settings import Settings
from gradbench.config import group_files, load_member
from gradbench.errors import GradbenchError, unknown

LIBRARIES = ("torchvision", "timm")
"""Libraries whose networks are taken too, as LIBRARY:NAME."""
CLASSES = 10
SETTLING = 8
"""Images from which batch normalisation takes its statistics."""
AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def complete(settings: Settings) -> Settings:
    """Return the settings with width and threads filled in; sets torch's threads.

    Raises:
        GradbenchError: for a backbone, width, device or precision that cannot be had here.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    find_device(settings.device)
    if settings.precision == "tf32" and settings.device == "cpu":
        raise GradbenchError("precision tf32 is one of NVIDIA's GPUs: name one with --device cuda")
    if _library(settings):
        _name_there(settings)
        width = None
    else:
        width = _member(settings).get("width")
    return replace(settings, width=width, threads=torch.get_num_threads())


def find_device(name: str) -> torch.device:
    """Return the device of a name.

    Raises:
        GradbenchError: if it is not here.
    """
    present = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    present += [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if name not in present:
        raise unknown("device", name, present)
    return torch.device(name)


def make(settings: Settings) -> tuple[nn.Module, Tensor]:
    """Return the network in evaluation mode and the images, both on the device.

    Weights and images are random but always the same. Batch normalisation takes its statistics from
    a few images, so that outputs and gradients are of the size that trained networks have.

    Raises:
        GradbenchError: if the network cannot be built or cannot take such images.
    """
    model = build(settings)
    device = find_device(settings.device)
    dtype = torch.float64 if settings.precision == "float64" else torch.float32
    model = model.to(device, dtype).eval()
    size = settings.image_size
    draw = torch.Generator().manual_seed(1)  # of its own: the weights are drawn with seed 0
    images = torch.randn(max(settings.batch, SETTLING), 3, size, size, generator=draw)
    images = images.to(device, dtype)
    settle(model, images, settings)
    return model, images[: settings.batch].clone()


def build(settings: Settings, classes: int = CLASSES, channels: int = 3) -> nn.Module:
    """Return the network with random weights, always the same; libraries' have 1,000 classes."""
    torch.manual_seed(0)
    if _library(settings) == "torchvision":
        import torchvision

        return torchvision.models.get_model(_name_there(settings), weights=None)
    if _library(settings) == "timm":
        import timm

        return timm.create_model(_name_there(settings), pretrained=False)
    return build_network(network_config(_member(settings), classes, channels))


def settle(model: nn.Module, images: Tensor, settings: Settings) -> None:
    """Let batch normalisation take its statistics from the first few images.

    Raises:
        GradbenchError: if the network cannot take such images.
    """
    try:
        _settle(model, images[:SETTLING])
    except Exception as fault:  # whatever a network raises that does not take such images
        reason = " ".join(str(fault).split())
        size = "x".join(map(str, images.shape[2:]))
        raise GradbenchError(
            f"{settings.backbone} cannot take images of {size} pixels ({reason}): "
            "choose others with --image-size"
        ) from fault


@contextmanager
def numerics(settings: Settings):
    """Compute in the precision that is asked for."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = settings.precision == "tf32"
    kind = settings.device.split(":")[0]
    low = AUTOCAST.get(settings.precision)
    try:
        with torch.autocast(kind, dtype=low, enabled=low is not None):
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def _settle(model: nn.Module, images: Tensor) -> None:
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    usual = [m.momentum for m in norms]
    for norm in norms:
        norm.train().momentum = None  # the plain mean over the images seen
    with torch.no_grad():
        model(images)
    for norm, momentum in zip(norms, usual):
        norm.eval().momentum = momentum


def _member(settings: Settings) -> dict:
    """Return the backbone's file, with the width that is asked for."""
    folders: Sequence[Path] = [Path(folder) for folder in settings.folders]
    if settings.backbone not in group_files("backbone", folders):
        names = [*group_files("backbone", folders), *(f"{name}:NAME" for name in LIBRARIES)]
        raise unknown("backbone", settings.backbone, names)
    content = load_member("backbone", settings.backbone, folders)
    if not content.get("_target_"):
        raise GradbenchError(
            f"backbone {settings.backbone} names no class: give it a file of its own with "
            "_target_, and its folder with --config-dir"
        )
    if settings.width:
        if content.get("width") is None:
            raise GradbenchError(f"backbone {settings.backbone} has no width: leave out --width")
        content["width"] = settings.width
    return content


def _library(settings: Settings) -> str | None:
    """Return the library that the network is of; None for one of `configs/backbone`."""
    library, colon, _ = settings.backbone.partition(":")
    return library if colon and library in LIBRARIES else None


def _name_there(settings: Settings) -> str:
    library, _, name = settings.backbone.partition(":")
    try:
        if library == "timm":
            from timm import list_models

            known = list_models()
        else:
            from torchvision import models

            known = models.list_models(module=models)
    except ImportError as fault:
        raise GradbenchError(f"{settings.backbone}: {library} is not installed") from fault
    if name not in known:
        raise unknown(f"network of {library}", name, known)
    if settings.width:
        raise GradbenchError(f"{settings.backbone} has no width: leave out --width")
    return name
