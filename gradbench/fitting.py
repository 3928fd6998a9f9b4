"""What detectors are fitted on besides challenges: the bank and the hold-out."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from gradbench.data.imageset import ImageSet
from gradbench.detectors.base import GIVEN
from gradbench.detectors.scoring import Clean
from gradbench.extraction.head import head_tensors
from gradbench.trial import Trial


def clean(trial: Trial, name: str) -> Clean:
    """Return what a detector reads of training images, of f's last layer and of the hold-out."""
    detector = trial.experiment.detector(name)
    bank = _read(trial, trial.images.train, detector.bank_reads)
    if any(read.startswith("head/") for read in detector.bank_reads):
        bank |= head_tensors(trial.f.backbone)
    return Clean(bank, _read(trial, trial.images.hold_out, detector.hold_out_reads))


def _read(trial: Trial, images: ImageSet, reads: Iterable[str]) -> dict[str, Tensor]:
    outputs = [read for read in reads if read not in GIVEN]
    found = trial.look(images, outputs).outputs if outputs else {}
    return found | ({"labels": torch.from_numpy(images.labels)} if "labels" in reads else {})
