"""Studies beside the runs, on every network of an experiment.

    python scripts/studies.py fusions|layers|choice OUT.csv [SETTINGS of `gradbench run`]

`fusions`, whether it takes gradients: AUROC in percent of s = z(energy) + max(0, z(d)), with the
distance d of `gradient_oneclass` (that is `gradient_fused`), of `activation_oneclass` (that is
`activation_fused`), of `knn`, `vim`, `rmds` or `mahalanobis_v`, and of energy and each d alone; z
is taken on the hold-out. `layers`, where in the network the signal sits: AUROC in percent of
`gradient_oneclass` on all parameter tensors, on those of one stage alone, and on all but that
stage. `choice`, which fusion to take before any outlier is seen: AUROC in percent of fusions on
outliers that are made of hold-out images, against the hold-out images themselves; one half of the
hold-out fits, the other is measured, and no challenge of the experiment is looked at. Nothing is
fitted to a challenge. Outputs come from the store where they are; rows of other
experiments in OUT.csv stay.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from gradbench.backbones.trained_network import load_or_train
from gradbench.cli.composing import for_hydra
from gradbench.config import compose
from gradbench.data.imageset import ImageSet
from gradbench.errors import MissingData
from gradbench.methods.base import BANK_EXTRAS, Samples
from gradbench.methods.fused import Fused
from gradbench.methods.gradient_oneclass import GradientOneClass
from gradbench.methods.tuning import rank_auroc
from gradbench.outputs.layers import head_tensors
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


def choice(context: NetworkContext) -> Iterator[dict]:
    """Yield the rows of one network."""
    held, train = context.images.hold_out, context.images.train
    order = np.random.default_rng(0).permutation(len(held))
    count = min(len(held) // 2, MADE_OF)
    fit, normal = (held.select(np.sort(rows)) for rows in (order[count:], order[:count]))
    # a fusion of all has all that a part needs, and each of its scores of both views
    every = Fused(PARTS, LOGS, mirrored=True)
    reads = {*every.hold_out_reads} - {"labels"}
    bank = dict(context.read_outputs(train, {*every.bank_reads} - {*BANK_EXTRAS}).outputs)
    bank |= head_tensors(context.f.backbone) | {"labels": torch.from_numpy(train.labels)}
    sides = {"fit": fit, "": normal} | {kind: outliers(normal, kind) for kind in OUTLIERS}
    outputs = {kind: dict(context.read_outputs(one, reads).outputs) for kind, one in sides.items()}
    samples = Samples.normal(outputs["fit"] | {"labels": torch.from_numpy(fit.labels)})
    every.fit(bank, samples, samples)
    views = {kind: every.views(values).numpy() for kind, values in outputs.items()}
    columns = {name: i for i, name in enumerate((*PARTS, *LOGS))}
    for mirrored in (False, True):
        scores = {k: v.mean(0) if mirrored else v[0] for k, v in views.items()}
        mean, std = scores["fit"].mean(0), scores["fit"].std(0)
        z = {kind: (values - mean) / std for kind, values in scores.items()}
        for parts, rectified in product(FUSIONS, ("", *LOGS)):
            rows = [columns[name] for name in parts]
            fused = {kind: values[:, rows].sum(1) for kind, values in z.items()}
            if rectified:
                fused = {k: v + z[k][:, columns[rectified]].clip(0) for k, v in fused.items()}
            for kind in OUTLIERS:
                both = np.concatenate([fused[""], fused[kind]])
                value = auroc(both, np.repeat([False, True], count))
                yield {"outliers": kind, "near": kind in NEAR, "parts": " + ".join(parts),
                       "rectified": rectified, "mirrored": mirrored, "images": count,
                       "auroc": value}  # fmt: skip


PARTS = ("energy", "gen", "knn", "rmds")
FUSIONS = [
    parts
    for size in range(1, 5)
    for parts in combinations(PARTS, size)
    if not {"energy", "gen"} <= {*parts}  # both are functions of the logits
]
NEAR = ("mixup", "halves", "shuffle2", "shuffle4")
OUTLIERS = (*NEAR, "shuffle8", "phases")
MADE_OF = 1000
"""Hold-out images that outliers are made of, at most half of the hold-out."""


def outliers(images: ImageSet, kind: str) -> ImageSet:
    """Return an outlier made of each image (C, H, W), with even sides, of a set.

    `mixup`: the weighted mean of it and an image of another class, weights 0.35 to 0.65. `halves`:
    its left or upper half beside the other half of an image of another class. `shuffleN`: its N x N
    tiles, each at another's place. `phases`: random phases under its spectrum, the same for all
    channels, cut to [0, 1].
    """
    rng = np.random.default_rng([OUTLIERS.index(kind), 1])
    pixels, labels = images.images[slice(None)].astype(np.float64) / 255, images.labels
    count, _, height, width = pixels.shape
    partners = np.array([rng.choice(np.flatnonzero(labels != label)) for label in labels])
    if kind == "mixup":
        weights = rng.uniform(0.35, 0.65, (count, 1, 1, 1))
        made = weights * pixels + (1 - weights) * pixels[partners]
    elif kind == "halves":
        upper = rng.random(count) < 0.5
        made = pixels.copy()
        made[upper, :, height // 2 :] = pixels[partners[upper], :, height // 2 :]
        made[~upper, ..., width // 2 :] = pixels[partners[~upper], ..., width // 2 :]
    elif kind == "phases":
        spectra = np.fft.rfft2(pixels)
        turns = np.exp(2j * np.pi * rng.random((count, 1, *spectra.shape[2:])))
        made = np.fft.irfft2(spectra * turns, (height, width)).clip(0, 1)
    else:
        side = int(kind.removeprefix("shuffle"))
        tiles = pixels.reshape(count, -1, side, height // side, side, width // side)
        tiles = tiles.transpose(0, 2, 4, 1, 3, 5).reshape(count, side**2, -1)
        # a random order, turned by one against itself: no tile stays where it was
        order = np.argsort(rng.random((count, side**2)), axis=1)
        moved = np.empty_like(tiles)
        np.put_along_axis(
            moved, np.roll(order, 1, axis=1)[..., None],
            np.take_along_axis(tiles, order[..., None], axis=1), axis=1,
        )  # fmt: skip
        made = moved.reshape(count, side, side, -1, height // side, width // side)
        made = made.transpose(0, 3, 1, 4, 2, 5).reshape(pixels.shape)
    grid = np.rint(255 * made).astype(np.uint8)
    return replace(images, name=kind, split="made", images=grid, status="generated")


STUDIES = {
    "fusions": (fusions, ("energy", *DISTANCES)),
    "layers": (layers, ("gradient_oneclass",)),
    "choice": (choice, ("energy",)),
}


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
