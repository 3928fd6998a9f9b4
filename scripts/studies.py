"""Two studies beside the runs, on every challenge and network of an experiment.

    python scripts/studies.py fusions|layers OUT.csv [SETTINGS of `gradbench run`]

`fusions`, whether it takes gradients: AUROC in percent of s = z(energy) + max(0, z(d)), with the
distance d of `gradient_oneclass` (that is `gradient_fused`), of `activation_oneclass` (that is
`activation_fused`), of `knn`, `vim`, `rmds` or `mahalanobis_v`, and of energy and each d alone; z
is taken on the hold-out. `layers`, where in the network the signal sits: AUROC in percent of
`gradient_oneclass` on all parameter tensors, on those of one stage alone, and on all but that
stage. Nothing is fitted to a challenge. Outputs come from the store where they are; rows of other
experiments in OUT.csv stay.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from gradbench.backbones.trained_network import load_or_train
from gradbench.cli.composing import for_hydra
from gradbench.config import compose
from gradbench.errors import MissingData
from gradbench.methods.base import Samples
from gradbench.methods.gradient_oneclass import GradientOneClass
from gradbench.methods.tuning import rank_auroc
from gradbench.report.figures import stages
from gradbench.run.context import ImagesWithOutputs, NetworkContext, clean_images, network_request
from gradbench.run.experiment import build_experiment
from gradbench.run.fitting import image_scores
from gradbench.store import Store

LOGS = ("gradient_oneclass", "activation_oneclass")
"""Distances whose logarithm is joined, as the fused detectors do."""
DISTANCES = (*LOGS, "knn", "vim", "rmds", "mahalanobis_v")


def fusions(context: NetworkContext) -> Iterator[dict]:
    """Yield the rows of one network."""

    def parts(seen: ImagesWithOutputs) -> pd.DataFrame:
        scores = {name: image_scores(context, name, seen) for name in ("energy", *DISTANCES)}
        return pd.DataFrame(
            {n: np.log(s.clip(min=1e-12)) if n in LOGS else s for n, s in scores.items()}
        )

    held = parts(context.read_outputs(context.images.hold_out))
    for challenge, both in measured(context):
        scores = [parts(side) for side in both]
        abnormal = np.repeat([False, True], list(map(len, scores)))
        alone = pd.concat(scores)
        z = (alone - held.mean()) / held.std(ddof=0)
        yield {"challenge": challenge, "distance": "", "auroc": auroc(alone["energy"], abnormal)}
        for name in DISTANCES:
            joined = z["energy"] + z[name].clip(lower=0)
            yield {"challenge": challenge, "distance": name, "auroc": auroc(joined, abnormal),
                   "auroc_alone": auroc(alone[name], abnormal)}  # fmt: skip


def layers(context: NetworkContext) -> Iterator[dict]:
    """Yield the rows of one network."""
    names = [name for name, _ in context.f.backbone.network.named_parameters()]
    every = list(range(len(names)))
    parts = {"all": every} | {s.name: every[s.first : s.last + 1] for s in stages(names)}
    held = context.read_outputs(context.images.hold_out).outputs
    for challenge, both in measured(context):
        normal, abnormal = (side.outputs for side in both)

        def of(places: list[int], normal=normal, abnormal=abnormal) -> float:
            detector = GradientOneClass()
            source = detector.source
            aside, *sides = (
                {"logits": outputs["logits"], source: outputs[source][:, places]}
                for outputs in (held, normal, abnormal)
            )
            samples = Samples.normal(aside)
            detector.fit({}, samples, samples)
            scores = [detector.score(outputs) for outputs in sides]
            which = np.repeat([False, True], list(map(len, scores)))
            return auroc(torch.cat(scores).numpy(), which)

        for part, places in parts.items():
            rest = [place for place in every if place not in places]
            yield {"challenge": challenge, "part": part, "tensors": len(places),
                   "auroc": of(places), "auroc_without": of(rest) if rest else None}  # fmt: skip


STUDIES = {"fusions": (fusions, ("energy", *DISTANCES)), "layers": (layers, ("gradient_oneclass",))}


def measured(
    context: NetworkContext,
) -> Iterator[tuple[str, tuple[ImagesWithOutputs, ImagesWithOutputs]]]:
    """Yield the title of each challenge whose images are here, and its two sides."""
    for cell in context.experiment.cells:
        try:
            sides = context.sides(cell)
            yield cell.title, (sides.normal, sides.abnormal)
        except MissingData as reason:
            print(f"{cell.title}: {reason}", file=sys.stderr)


def auroc(scores: np.ndarray | pd.Series, abnormal: np.ndarray) -> float:
    """Return an AUROC in percent."""
    return round(100 * float(rank_auroc(np.asarray(scores), abnormal)), 3)


def main(study: str, path: Path, words: list[str]) -> None:
    """Carry out a study on every network of an experiment and write its rows."""
    rows_of, detectors = STUDIES[study]
    experiment = build_experiment(
        compose([*map(for_hydra, words), f"detectors=[{','.join(detectors)}]"])
    )
    images = clean_images(experiment)
    store = Store(Path(experiment.config["store"]).expanduser())
    tables = []
    for seed in experiment.seeds:
        wanted = network_request(experiment, images, seed)
        f = load_or_train(wanted, images.train, images.test, store, hold_out=images.hold_out)
        rows = pd.DataFrame(rows_of(NetworkContext(experiment, images, f, seed, store)))
        rows.insert(0, "experiment", experiment.name)
        rows.insert(1, "train_seed", seed)
        tables.append(rows)
    if path.is_file():
        others = pd.read_csv(path)
        tables.insert(0, others[others["experiment"] != experiment.name])
    pd.concat(tables).to_csv(path, index=False, lineterminator="\n")


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in STUDIES or "=" in sys.argv[2]:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
