"""What a run keeps of every detector, to compare, to average and to judge new images by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from gradbench.statistics.bootstrap import BootstrapSamples

CellName = tuple[str, str, int | None]
"""Challenge_set, challenge and level."""


class Verdict(NamedTuple):
    """What one network and detector gave on a challenge, to be compared and averaged.

    Attributes:
        sampled: AUROC and its resamples.
        counts: measured scores of all folds, (normal, abnormal).
        interval: of AUROC, as its row prints it, fractions.
        folds: digest of the groups of the images that each fold measures.
        related: what is fitted on of the detector's own challenges, "" where nothing is alike.
    """

    sampled: BootstrapSamples
    counts: tuple[int, int]
    interval: tuple[float, float]
    folds: str = ""
    related: str = ""


@dataclass(frozen=True)
class Threshold:
    """The largest score that is still called reliable.

    Attributes:
        value: of the score.
        images: of the hold-out that it was taken from.
        note: what else the detector knows of these images.
    """

    value: float
    images: int
    note: str = ""
