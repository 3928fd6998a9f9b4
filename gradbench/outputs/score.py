"""Scores images directly: the outputs and passes that a detector needs, then the detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.outputs.extract import BATCH
from gradbench.outputs.perturbed import Perturbed
from gradbench.outputs.readers import read


class Scorer(Protocol):
    """What is needed of a fitted detector, see `detectors.base.Detector`."""

    reads: Sequence[str]
    perturbed: Mapping[str, Perturbed]

    def score(self, outputs: dict[str, Tensor]) -> Tensor:
        """Return (N,) scores of outputs."""


def score_images(detector: Scorer, backbone: Backbone, images: Tensor) -> Tensor:
    """Return the scores of images (B, C, H, W) in [0, 1]: (B,), higher = more likely abnormal.

    Args:
        detector: fitted.
        backbone: f in evaluation mode.
        images: any number; they are read in passes of 64.
    """
    found = []
    for batch in images.split(BATCH):
        batch = batch.to(backbone.device)
        outputs = read(backbone, batch, detector.reads) if detector.reads else {}
        outputs |= {name: what(backbone, batch) for name, what in detector.perturbed.items()}
        found.append(detector.score(outputs))
    return torch.cat(found)
