"""Trained networks and real images for a benchmark, random ones where there are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gradbench.backbones.backbone import Backbone
from gradbench.backbones.checkpoint import load_checkpoint, read_checkpoint
from gradbench.backbones.trained_network import class_names
from gradbench.bench import networks
from gradbench.bench.settings import Settings
from gradbench.config import load_member
from gradbench.data.imageset import ImageSet, channel_statistics, source_ids, to_float
from gradbench.data.resample import resize_to
from gradbench.data.settings import DataSettings
from gradbench.errors import GradbenchError
from gradbench.support.instantiate import instantiate


def images_of(name: str, root: Path, count: int, size: int | None, settings: Settings) -> ImageSet:
    """Return test images of a data set, spread evenly over it; nothing is downloaded.

    Args:
        name: of `gradbench list datasets`.
        root: folder of all data sets.
        count: how many; fewer where the set has fewer.
        size: height and width to bring them to; None leaves them as they are.
        settings: names the folders of the user's own files.

    Raises:
        GradbenchError: if there is no such set or its images are not on this machine.
    """
    folders = [Path(folder) for folder in settings.folders]
    dataset = instantiate("dataset", name, load_member("dataset", name, folders))
    images = dataset.load("test", DataSettings(root, download=False))
    count = min(count, len(images))
    images = images.select(np.arange(count) * len(images) // count)
    return images if size is None else resize_to(images, (images.shape[0], size, size))


def tiles(count: int, side: int) -> ImageSet:
    """Return tiles of two photographs, moved on from image to image, with arbitrary labels.

    Raises:
        GradbenchError: if tiles are to be larger than the photographs.
    """
    from sklearn.datasets import load_sample_images

    photos = load_sample_images().images
    if side > min(photo.shape[0] for photo in photos):
        raise GradbenchError(f"--image-size {side}: at most {photos[0].shape[0]}")
    rng = np.random.default_rng(0)
    pixels = np.empty((count, 3, side, side), np.uint8)
    for number in range(count):
        photo = photos[number % len(photos)]
        top, left = (rng.integers(0, n - side + 1) for n in photo.shape[:2])
        pixels[number] = photo[top : top + side, left : left + side].transpose(2, 0, 1)
    names = tuple(map(str, range(networks.CLASSES)))
    labels = np.arange(count) % networks.CLASSES
    sources = source_ids("tiles", "all", count)
    return ImageSet("tiles", "all", pixels, labels, sources, classes=names)


def make(
    settings: Settings, count: int, checkpoint: Path | None, images: ImageSet | None
) -> tuple[nn.Module, Tensor]:
    """Return a network in evaluation mode, with its normalisation, and its images, on the device.

    Without a checkpoint weights are random, without images those are: `networks.make` tells how.
    Mean and deviation of the pixels are the checkpoint's, or those of the images.

    Args:
        settings: with width and threads filled in.
        count: number of random images.
        checkpoint: weights of the network.
        images: test images.

    Raises:
        GradbenchError: if the checkpoint is not of this network, or it cannot take the images.
    """
    if images is None and checkpoint is None:
        return networks.make(replace(settings, batch=count))
    device = networks.find_device(settings.device)
    about = read_checkpoint(checkpoint)[1] if checkpoint else {}
    if images is not None:
        classes, channels = class_names(images), images.shape[0]
        pixels = to_float(images.images[: len(images)])
    else:
        classes, channels = range(networks.CLASSES), 3
        draw = torch.Generator().manual_seed(1)
        size = settings.image_size
        pixels = torch.randn(count, channels, size, size, generator=draw)
    classes = about.get("classes") or classes
    model = networks.build(settings, len(classes), channels)
    if checkpoint:
        load_checkpoint(model, checkpoint)
    if images is not None:
        mean, std = about.get("mean"), about.get("std")
        if mean is None or std is None:
            mean, std = channel_statistics(images)
        model = Backbone(model, mean, std, classes, images.shape)
    model, pixels = model.to(device).eval(), pixels.to(device)
    if checkpoint is None:
        networks.settle(model, pixels, settings)
    return model, pixels
