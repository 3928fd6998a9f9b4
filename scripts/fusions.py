"""Whether it takes gradients: energy joined with others by the formula of `gradient_fused`.

    python scripts/fusions.py OUT.csv [SETTINGS of `gradbench run`]

For every challenge of the experiment and every network, AUROC in percent of s = z(energy) +
max(0, z(d)), with the distance d of `gradient_oneclass` (that is `gradient_fused`), of
`activation_oneclass` (that is `activation_fused`), of `knn`, `vim`, `rmds` or `mahalanobis_v`;
and of energy and each d alone. z is taken on the hold-out; no challenge image is seen and nothing
is tuned. Outputs come from the store where they are.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import study

from gradbench.data.dataset import MissingData
from gradbench.methods.tuning import rank_auroc
from gradbench.run.fitting import image_scores
from gradbench.run.sides import sides
from gradbench.run.trial import Seen, Trial

COLUMNS = ("experiment", "train_seed", "challenge", "distance", "auroc", "auroc_alone")
BASE = "energy"
LOGS = ("gradient_oneclass", "activation_oneclass")
DETECTORS = (*LOGS, "knn", "vim", "rmds", "mahalanobis_v")


def main(path: Path, words: list[str]) -> None:
    """Measure every network of the experiment and write the rows."""
    detectors = f"detectors=[{','.join((BASE, *DETECTORS))}]"
    study.write(path, COLUMNS, [*words, detectors], measure)


def measure(trial: Trial) -> list[tuple]:
    """Return the rows of one network."""
    held = parts(trial, trial.look(trial.images.hold_out))
    found = []
    for cell in trial.experiment.cells:
        try:
            seen = sides(trial, cell, trial.challenge(cell))
        except MissingData as reason:
            print(f"{cell.title}: {reason}", file=sys.stderr)
            continue
        both = [parts(trial, side) for side in seen]
        abnormal = np.repeat([False, True], [len(side[BASE]) for side in both])
        scores = {name: np.concatenate([side[name] for side in both]) for name in held}
        alone = {name: rank_auroc(values, abnormal) for name, values in scores.items()}
        z = {name: (scores[name] - held[name].mean()) / held[name].std() for name in held}
        common = (trial.experiment.name, trial.seed, cell.title)
        found.append((*common, "", _percent(alone[BASE]), ""))
        for name in DETECTORS:
            joined = rank_auroc(z[BASE] + z[name].clip(min=0), abnormal)
            found.append((*common, name, _percent(joined), _percent(alone[name])))
    return found


def parts(trial: Trial, seen: Seen) -> dict[str, np.ndarray]:
    """Return the scores (N,) of all parts; of `LOGS` the logarithm, as the fused detectors do."""
    scores = {name: image_scores(trial, name, seen) for name in (BASE, *DETECTORS)}
    return {n: np.log(s.clip(min=1e-12)) if n in LOGS else s for n, s in scores.items()}


def _percent(value: float) -> float:
    return round(100 * float(value), 3)


if __name__ == "__main__":
    if len(sys.argv) < 2 or "=" in sys.argv[1]:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])
