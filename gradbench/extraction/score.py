"""Scores images directly: the outputs that a detector reads, then the detector."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from gradbench.backbones.backbone import Backbone
from gradbench.extraction.extract import BATCH
from gradbench.extraction.readers import read


class Scorer(Protocol):
    """What is needed of a fitted detector, see `detectors.base.Detector`."""

    reads: tuple[str, ...]

    def score(self, outputs: dict[str, Tensor]) -> Tensor:
        """Return (N,) scores of outputs."""


def score_images(detector: Scorer, backbone: Backbone, images: Tensor) -> Tensor:
    """Return the scores of images (B, C, H, W) in [0, 1]: (B,), higher = more likely abnormal.

    Args:
        detector: fitted.
        backbone: f in evaluation mode.
        images: any number; they are read in passes of 64.
    """
    found = [
        detector.score(read(backbone, batch.to(backbone.device), detector.reads))
        for batch in images.split(BATCH)
    ]
    return torch.cat(found)
