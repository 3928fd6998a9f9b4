"""Whether it takes gradients: energy joined with others by the formula of `gradient_fused`.

    python scripts/fusions.py OUT.csv [SETTINGS of `gradbench run`]

For every challenge of the experiment and every network, AUROC in percent of s = z(energy) +
max(0, z(d)), with the distance d of the log gradient profile (that is `gradient_fused`), of `knn`,
`vim`, `rmds` or `mahalanobis_v`, and of energy and each d alone. z is taken on the hold-out; no
challenge image is seen and nothing is tuned. Outputs come from the store where they are.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

from gradbench.backbones.obtain import obtain
from gradbench.cli.words import braced
from gradbench.config import compose
from gradbench.data.dataset import MissingData
from gradbench.data.gather import gather
from gradbench.detectors.profile import rank_auroc
from gradbench.pipeline import order
from gradbench.run.experiment import Experiment, read
from gradbench.run.fitting import image_scores
from gradbench.run.sides import sides
from gradbench.run.trial import Seen, Trial
from gradbench.store import Store

COLUMNS = ("experiment", "train_seed", "challenge", "distance", "auroc", "auroc_alone")
BASE, GRADIENT = "energy", "gradient_oneclass"
DISTANCES = (GRADIENT, "knn", "vim", "rmds", "mahalanobis_v")


def main(path: Path, words: list[str]) -> None:
    """Measure every network of the experiment and write the rows."""
    detectors = f"detectors=[{','.join((BASE, *DISTANCES))}]"
    experiment = read(compose([*map(braced, words), detectors]))
    images = gather(experiment.dataset, experiment.data, experiment.config["limit"])
    store = Store(Path(experiment.config["store"]).expanduser())
    rows = []
    for seed in experiment.seeds:
        f = obtain(order(experiment, images, seed), images.train, images.test, store)
        rows += measure(experiment, Trial(experiment, images, f, seed, store))
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerows([COLUMNS, *rows])


def measure(experiment: Experiment, trial: Trial) -> list[tuple]:
    """Return the rows of one network."""
    held = parts(trial, trial.look(trial.images.hold_out))
    found = []
    for cell in experiment.cells:
        try:
            both = [parts(trial, seen) for seen in sides(trial, cell, trial.challenge(cell))]
        except MissingData as reason:
            print(f"{cell.title}: {reason}", file=sys.stderr)
            continue
        abnormal = np.repeat([False, True], [len(side[BASE]) for side in both])
        scores = {name: np.concatenate([side[name] for side in both]) for name in held}
        alone = {name: rank_auroc(values, abnormal) for name, values in scores.items()}
        z = {name: (scores[name] - held[name].mean()) / held[name].std() for name in held}
        common = (experiment.name, trial.seed, cell.title)
        found.append((*common, "", _percent(alone[BASE]), ""))
        for name in DISTANCES:
            joined = rank_auroc(z[BASE] + z[name].clip(min=0), abnormal)
            found.append((*common, name, _percent(joined), _percent(alone[name])))
    return found


def parts(trial: Trial, seen: Seen) -> dict[str, np.ndarray]:
    """Return the scores (N,) of all parts; of the gradients the logarithm, as the detector does."""
    scores = {name: image_scores(trial, name, seen) for name in (BASE, *DISTANCES)}
    scores[GRADIENT] = np.log(scores[GRADIENT].clip(min=1e-12))
    return scores


def _percent(value: float) -> float:
    return round(100 * float(value), 3)


if __name__ == "__main__":
    if len(sys.argv) < 2 or "=" in sys.argv[1]:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])
