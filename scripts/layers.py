"""Where in the network the signal sits: the one-class detector on the gradients of each part alone.

    python scripts/layers.py OUT.csv [SETTINGS of `gradbench run`]

For every challenge of the experiment and every network, AUROC in percent of `gradient_oneclass`
(fitted on the hold-out, no challenge image seen) on all parameter tensors, on those of one stage
alone, and on all but that stage. Outputs come from the store where they are.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import study
import torch

from gradbench.data.dataset import MissingData
from gradbench.methods.base import Samples
from gradbench.methods.gradient_oneclass import GradientOneClass
from gradbench.methods.tuning import rank_auroc
from gradbench.report.stages import stages
from gradbench.run.sides import sides
from gradbench.run.trial import Trial

COLUMNS = ("experiment", "train_seed", "challenge", "part", "tensors", "auroc", "auroc_without")


def main(path: Path, words: list[str]) -> None:
    """Measure every network of the experiment and write the rows."""
    detectors = "detectors=[gradient_oneclass]"
    study.write(path, COLUMNS, [*words, detectors], measure)


def measure(trial: Trial) -> list[tuple]:
    """Return the rows of one network."""
    names = [name for name, _ in trial.f.backbone.network.named_parameters()]
    parts = {s.name: list(range(s.first, s.last + 1)) for s in stages(names)}
    every = list(range(len(names)))
    held = trial.look(trial.images.hold_out).outputs
    found = []
    for cell in trial.experiment.cells:
        try:
            normal, abnormal = (side.outputs for side in sides(trial, cell, trial.challenge(cell)))
        except MissingData as reason:
            print(f"{cell.title}: {reason}", file=sys.stderr)
            continue

        def auroc(places: list[int], normal=normal, abnormal=abnormal) -> float:
            fitted = GradientOneClass()
            given = [_only(outputs, fitted.source, places) for outputs in (held, normal, abnormal)]
            aside = Samples.normal(given[0])
            fitted.fit({}, aside, aside)
            scores = [fitted.score(outputs) for outputs in given[1:]]
            which = np.repeat([False, True], [len(s) for s in scores])
            return round(100 * rank_auroc(torch.cat(scores).numpy(), which), 3)

        common = (trial.experiment.name, trial.seed, cell.title)
        found.append((*common, "all", len(every), auroc(every), ""))
        for name, places in parts.items():
            rest = [place for place in every if place not in places]
            found.append((*common, name, len(places), auroc(places), auroc(rest)))
    return found


def _only(outputs: dict[str, torch.Tensor], source: str, places: list[int]) -> dict:
    return {"logits": outputs["logits"], source: outputs[source][:, places]}


if __name__ == "__main__":
    if len(sys.argv) < 2 or "=" in sys.argv[1]:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])
