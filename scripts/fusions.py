"""Whether it takes gradients: energy joined with others by the formula of `gradient_fused`.

    python scripts/fusions.py OUT.csv [SETTINGS of `gradbench run`]

For every challenge of the experiment and every network, AUROC in percent of s = z(energy) +
max(0, z(d)), with the distance d of the log gradient profile (that is `gradient_fused`), of `knn`,
`vim`, `rmds` or `mahalanobis_v`, or of the profile's own model on the channel means of all stages
(`activations`); and of energy and each d alone. z is taken on the hold-out; no challenge image is
seen and nothing is tuned. Outputs come from the store where they are.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import study
import torch
from torch import Tensor

from gradbench.data.dataset import MissingData
from gradbench.detectors.oneclass_models import Mahalanobis
from gradbench.detectors.profile import rank_auroc
from gradbench.run.fitting import image_scores
from gradbench.run.sides import sides
from gradbench.run.trial import Seen, Trial

COLUMNS = ("experiment", "train_seed", "challenge", "distance", "auroc", "auroc_alone")
BASE, GRADIENT = "energy", "gradient_oneclass"
DETECTORS = (GRADIENT, "knn", "vim", "rmds", "mahalanobis_v")
ACTIVATIONS = "activations"
READS = "mahalanobis_fe"
"""Has the channel means of all stages read; its own score is not used."""


def main(path: Path, words: list[str]) -> None:
    """Measure every network of the experiment and write the rows."""
    detectors = f"detectors=[{','.join((BASE, *DETECTORS, READS))}]"
    study.write(path, COLUMNS, [*words, detectors], measure)


def measure(trial: Trial) -> list[tuple]:
    """Return the rows of one network."""
    hold_out = trial.look(trial.images.hold_out)
    distance = Activations(hold_out)
    held = parts(trial, hold_out, distance)
    found = []
    for cell in trial.experiment.cells:
        try:
            seen = sides(trial, cell, trial.challenge(cell))
        except MissingData as reason:
            print(f"{cell.title}: {reason}", file=sys.stderr)
            continue
        both = [parts(trial, side, distance) for side in seen]
        abnormal = np.repeat([False, True], [len(side[BASE]) for side in both])
        scores = {name: np.concatenate([side[name] for side in both]) for name in held}
        alone = {name: rank_auroc(values, abnormal) for name, values in scores.items()}
        z = {name: (scores[name] - held[name].mean()) / held[name].std() for name in held}
        common = (trial.experiment.name, trial.seed, cell.title)
        found.append((*common, "", _percent(alone[BASE]), ""))
        for name in (*DETECTORS, ACTIVATIONS):
            joined = rank_auroc(z[BASE] + z[name].clip(min=0), abnormal)
            found.append((*common, name, _percent(joined), _percent(alone[name])))
    return found


class Activations:
    """The one-class model of the gradients on channel means of all stages in place of the norms."""

    def __init__(self, hold_out: Seen):
        values, predicted = self._read(hold_out)
        self.means = values.mean(0).repeat(hold_out.outputs["logits"].shape[1], 1)
        for label in predicted.unique():
            self.means[label] = values[predicted == label].mean(0)
        self.model = Mahalanobis().fit(values - self.means[predicted])

    def __call__(self, seen: Seen) -> np.ndarray:
        """Return the logarithms (N,) of the distances."""
        values, predicted = self._read(seen)
        distance = self.model.distance(values - self.means[predicted])
        return distance.clamp(min=1e-12).log().numpy()

    def _read(self, seen: Seen) -> tuple[Tensor, Tensor]:
        names = sorted(name for name in seen.outputs if name.startswith("layer_means/"))
        values = torch.cat([seen.outputs[name] for name in names], dim=1).double()
        return values, seen.outputs["logits"].argmax(1)


def parts(trial: Trial, seen: Seen, distance: Activations) -> dict[str, np.ndarray]:
    """Return the scores (N,) of all parts; of the gradients the logarithm, as the detector does."""
    scores = {name: image_scores(trial, name, seen) for name in (BASE, *DETECTORS)}
    scores[GRADIENT] = np.log(scores[GRADIENT].clip(min=1e-12))
    return {**scores, ACTIVATIONS: distance(seen)}


def _percent(value: float) -> float:
    return round(100 * float(value), 3)


if __name__ == "__main__":
    if len(sys.argv) < 2 or "=" in sys.argv[1]:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])
