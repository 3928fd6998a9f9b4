"""What the passes of one detector alone take; those of a run serve many at once."""

from __future__ import annotations

import time
from pathlib import Path

from gradbench.backbones.backbone import Backbone
from gradbench.data.imageset import ImageSet
from gradbench.detectors.base import GIVEN
from gradbench.extraction.extract import BATCH, compute
from gradbench.run.trial import Trial
from gradbench.store import Key

VERSION = 1


def measure(trial: Trial) -> None:
    """Time the passes of one batch for every set of outputs that a detector of the run reads."""
    detectors = (trial.experiment.detector(name) for name in trial.experiment.detectors)
    wanted = {tuple(sorted(set(d.reads).difference(GIVEN))) for d in detectors}
    batch = trial.images.normal.select(range(min(BATCH, len(trial.images.normal))))
    for reads in sorted(wanted - {()}):
        key = Key(
            "passes",
            VERSION,
            {"reads": list(reads)},
            {"weights": trial.f.weights, "images": batch.fingerprint},
        )

        def build(_folder: Path, _: Path, reads: tuple[str, ...] = reads) -> dict:
            return {"images": len(batch), "pass_seconds": seconds(trial.f.backbone, batch, reads)}

        trial.store.make(key, build)


def seconds(backbone: Backbone, batch: ImageSet, reads: tuple[str, ...]) -> float:
    """Return the time of a pass over a batch, the second one: the first looks at the network."""
    rows = slice(0, len(batch))
    for _ in range(2):
        begun = time.monotonic()
        compute(backbone, batch, rows, list(reads))
    return time.monotonic() - begun
