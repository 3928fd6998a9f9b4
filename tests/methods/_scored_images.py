"""Scores of images by a fitted detector, read off f without the store."""

import torch
from torch import Tensor

from gradbench.outputs.read import read_outputs


def score_images(detector, backbone, images: Tensor) -> Tensor:
    """Return the scores (B,) of images (B, C, H, W) in [0, 1], read in passes of 64."""
    found = []
    for batch in images.split(64):
        outputs = read_outputs(backbone, batch, detector.reads) if detector.reads else {}
        outputs |= {name: one(backbone, batch) for name, one in detector.perturbed_passes.items()}
        found.append(detector.score(outputs))
    return torch.cat(found)
