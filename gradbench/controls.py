"""Controls of every run: what a detector must not be able to do, and what the split hides.

identity: a challenge of strength zero gives equal pixels and equal outputs, otherwise the run
stops. Random labels: a supervised detector fitted on clean images with arbitrary labels must stay
at chance. Round trip: clean images put through the resampling and JPEG of another set. Random
split: twins on both sides of the split, beside `grouped`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from gradbench.backbones.obtain import Network
from gradbench.cells import Images, challenge, judge, source
from gradbench.challenges.base import Derived
from gradbench.challenges.identity import Identity
from gradbench.challenges.other_set import OtherSet
from gradbench.data.dataset import MissingData
from gradbench.data.gather import InDistribution, part
from gradbench.data.imageset import ImageSet, to_float
from gradbench.data.resample import round_trip
from gradbench.errors import GradbenchError
from gradbench.evaluation.controls import assert_identical, mann_whitney_p, random_labels
from gradbench.evaluation.protocols import Grouped
from gradbench.experiment import Cell, Experiment
from gradbench.extraction.extract import compute, extract
from gradbench.results import Results
from gradbench.store import Key, Store

TRIED = 200
"""Images on which a challenge of strength zero is tried."""


def identity(experiment: Experiment, clean: ImageSet, f: Network, store: Store) -> None:
    """Stop the run unless every derived challenge of strength zero changes nothing.

    Pixels must be equal bit for bit, and so must the outputs of f, computed afresh.

    Raises:
        GradbenchError: naming the challenge that changes something.
    """
    if not experiment.config["controls"]["identity"]:
        return
    tried = {cell.name: cell for cell in experiment.cells if isinstance(cell.challenge, Derived)}
    first = clean.select(np.arange(min(TRIED, len(clean))))
    for name, cell in tried.items():
        zero = source(experiment, cell, f, strength=0.0)

        def build(_folder: Path, _: Path, zero=zero, name: str = name) -> dict:
            made = zero.make(first, np.arange(len(first)))
            pixels = (to_float(images).numpy() for images in (first.images[slice(None)], made))
            assert_identical(*pixels, f"identity control: pixels of {name}")
            before, after = (
                compute(f.backbone, images, slice(0, len(first)), experiment.reads)
                for images in (first, replace(first, images=made))
            )
            for output in experiment.reads:
                assert_identical(
                    before[output].numpy(),
                    after[output].numpy(),
                    f"identity control: {output} of {name}",
                )
            return {"images": len(first)}

        (made_of,) = zero.keys(first)
        inputs = {"challenge": made_of.digest, "weights": f.weights}
        store.make(Key("identity", 1, {"reads": experiment.reads}, inputs), build)


def run(
    experiment: Experiment,
    images: InDistribution,
    f: Network,
    seed: int,
    results: Results,
    store: Store,
) -> None:
    """Measure the controls that are switched on, and add their rows to the results."""
    wanted = experiment.config["controls"]
    clean = _outputs(experiment, images.normal, f, store)
    if wanted["identity"]:
        _identity_rows(experiment, clean, f, seed, results, store)
    if wanted["random_labels"]:
        _random_labels(experiment, clean, f, seed, results, store)
    if wanted["round_trip"]:
        _round_trips(experiment, images, f, seed, results, store)
    if wanted["random_split"]:
        _random_split(experiment, clean, f, seed, results, store)


def _identity_rows(experiment, clean: Images, f, seed, results: Results, store) -> None:
    cell = Cell("identity", Identity())
    made, _ = challenge(experiment, cell, clean.images, f, store)
    same = _outputs(experiment, made, f, store)
    for name in experiment.detectors:
        judged = judge(experiment, name, clean, same, f, store)
        results.add(seed, cell, made, name, judged, kind="control")
        (auroc,) = (m.value for m in judged.measured if m.metric == "auroc")
        if abs(auroc - 0.5) > 1e-9:
            raise GradbenchError(
                f"identity control: {name} tells clean images from themselves (AUROC "
                f"{100 * auroc:.2f} instead of 50), so its scores cannot be trusted"
            )


def _random_labels(experiment, clean: Images, f, seed, results: Results, store) -> None:
    """Fit every supervised detector on clean halves with arbitrary labels."""
    settings = experiment.config["evaluation"]
    ones = random_labels(clean.images.groups, settings["seed"])
    normal, abnormal = (_select(clean, np.flatnonzero(rows)) for rows in (~ones, ones))
    cell = Cell("random_labels", Identity())
    judged = {
        name: judge(experiment, name, normal, abnormal, f, store)
        for name in _supervised(experiment)
    }
    p_values = [_rank_p(judgement.scores) for judgement in judged.values()]
    results.add_random_labels(seed, cell, abnormal.images, judged, p_values)


def _rank_p(scores) -> float:
    """Return the two-sided p-value that scores tell the sides apart, ranked within folds."""
    ranks, labels = [], []
    for fold in scores:
        values = np.concatenate([fold.normal, fold.abnormal])
        ranks.append(np.argsort(np.argsort(values, kind="stable")) / len(values))
        labels.append(np.arange(len(values)) >= len(fold.normal))
    return mann_whitney_p(np.concatenate(ranks), np.concatenate(labels))


def _round_trips(experiment, images: InDistribution, f, seed, results: Results, store) -> None:
    """Put clean images through what the other sets went through, and measure them like these."""
    clean = part(images.normal, experiment.config["controls"]["limit"])
    reference = None
    for cell in experiment.cells:
        if not isinstance(cell.challenge, OtherSet):
            continue
        dataset = experiment.other_dataset(cell.challenge)
        try:
            native = dataset.load("challenge", experiment.data).shape
        except MissingData:
            continue
        how = cell.challenge
        made = round_trip(
            clean,
            native,
            dataset.processing,
            how.filter,
            how.antialias,
            how.mode,
            experiment.data.workers,
        )
        trip = Cell(f"round_trip:{cell.name}", how)
        if made is None:
            results.add_hole(
                seed, trip, "not needed: native shape, no processing known", kind="control"
            )
            continue
        reference = reference or _outputs(experiment, clean, f, store)
        tripped = _outputs(experiment, made, f, store)
        for name in experiment.detectors:
            judged = judge(experiment, name, reference, tripped, f, store)
            results.add(seed, trip, made, name, judged, kind="control")


def _random_split(experiment, clean: Images, f, seed, results: Results, store) -> None:
    """Measure supervised detectors again with twins on both sides of the split."""
    protocol = Grouped(folds=experiment.config["protocol"].get("folds", 5), split="random")
    for cell in experiment.cells:
        if not isinstance(cell.challenge, Derived):
            continue
        made, _ = challenge(experiment, cell, clean.images, f, store)
        twins = _outputs(experiment, made, f, store)
        for name in _supervised(experiment):
            judged = judge(experiment, name, clean, twins, f, store, protocol)
            results.add(seed, cell, made, name, judged)


def _supervised(experiment: Experiment) -> list[str]:
    return [n for n in experiment.detectors if experiment.detector(n).learns_from_challenges]


def _outputs(experiment: Experiment, images: ImageSet, f: Network, store: Store) -> Images:
    return Images(images, extract(f.backbone, f.weights, images, experiment.reads, store))


def _select(side: Images, rows: np.ndarray) -> Images:
    index = torch.from_numpy(rows)
    return Images(side.images.select(rows), {n: v[index] for n, v in side.outputs.items()})
