"""Controls of every run: what a detector must not be able to do, and what the split hides.

identity: a challenge of strength zero gives equal pixels and equal outputs, and no score tells it
from the clean images; otherwise the run stops. Random labels: a supervised detector fitted on clean
images with arbitrary labels must stay at chance. Round trip: clean images put through the
resampling and JPEG of another set. Random split: images of one source on both sides of the split,
beside `grouped`. Memorisation: training images against clean ones that f was not trained on.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

from gradbench.challenges.base import Derived
from gradbench.challenges.controls import Identity
from gradbench.challenges.other_set import OtherSet
from gradbench.data.imageset import ImageSet, LazyImages, to_float
from gradbench.data.resample import round_trip
from gradbench.data.roles import stratified_subset
from gradbench.errors import Faulty, GradbenchError
from gradbench.outputs.read import compute_outputs
from gradbench.protocols.base import Grouped
from gradbench.run import memorisation
from gradbench.run.experiment import Cell
from gradbench.run.faults import from_outside, others_go_on
from gradbench.run.judging import Judged, judge
from gradbench.run.results import Results
from gradbench.run.trial import Made, Seen, Trial
from gradbench.statistics.controls import assert_identical, mann_whitney_p, random_labels
from gradbench.store import Key
from gradbench.support.progress import step

TRIED = 200
"""Images on which a challenge of strength zero is tried."""


def identity(trial: Trial) -> None:
    """Stop the run unless every derived challenge of strength zero changes nothing.

    Pixels must be equal bit for bit, and so must the outputs of f, computed afresh for both. One
    of the user's own that makes none, or other ones each time, is left out, see `Trial.faults`.

    Raises:
        GradbenchError: naming the challenge that changes something.
    """
    experiment, clean = trial.experiment, trial.images.normal
    if not experiment.config["controls"]["identity"]:
        return
    tried = {cell.name: cell for cell in experiment.cells if isinstance(cell.challenge, Derived)}
    first = clean.select(np.arange(min(TRIED, len(clean))))
    for name, cell in tried.items():
        zero = trial.source(cell, strength=0.0)

        def build(_folder: Path, _: Path, zero=zero, name: str = name) -> dict:
            made = zero.make(first, np.arange(len(first)), compare=True)
            pixels = (to_float(images).numpy() for images in (first.images[slice(None)], made))
            assert_identical(*pixels, f"identity control: pixels of {name}")
            reads = trial.outputs_of(experiment.reads)
            before, after = (
                compute_outputs(trial.f.backbone, images, slice(0, len(first)), reads).values
                for images in (first, replace(first, images=made))
            )
            for output in before:
                assert_identical(
                    before[output].numpy(),
                    after[output].numpy(),
                    f"identity control: {output} of {name}",
                )
            return {"images": len(first)}

        (made_of,) = zero.keys(first)
        inputs = {"challenge": made_of.digest, "weights": trial.f.weights}
        try:
            with step(f"identity control: {name} of strength zero on {len(first)} images"):
                trial.store.make(Key("identity", 1, {"reads": experiment.reads}, inputs), build)
        except Faulty as fault:
            trial.faults[name] = str(fault)  # said where it would be measured


def run(trial: Trial, results: Results) -> None:
    """Measure the controls of clean images, and add their rows to the results."""
    wanted = trial.experiment.config["controls"]
    for name, measure in (
        ("identity", _identity_rows),
        ("random_labels", _random_labels),
        ("memorisation", memorisation.measure),
    ):
        if wanted[name]:
            with step(f"control {name}"):
                measure(trial, results)


def beside(
    trial: Trial, cell: Cell, made: Made, normal: Seen, abnormal: Seen, results: Results
) -> None:
    """Measure the controls that belong to one challenge, and add their rows to the results.

    Args:
        trial: the network and what belongs to it.
        cell: the challenge.
        made: its images.
        normal: the normal side of its measurement, with the outputs of f.
        abnormal: the abnormal side.
        results: of the run.
    """
    wanted = trial.experiment.config["controls"]
    if wanted["round_trip"] and isinstance(cell.challenge, OtherSet):
        with step(f"control round_trip of {cell.title}"):
            _round_trip(trial, cell, made, results)
    if wanted["random_split"] and trial.experiment.protocol.ungrouped() is not None:
        with step(f"control random_split of {cell.title}"):
            _random_split(trial, cell, normal, abnormal, results)


def _identity_rows(trial: Trial, results: Results) -> None:
    """Send unchanged images through every detector; twins must stay on one side for that."""
    cell = Cell("identity", Identity())
    made = trial.challenge(cell)
    same = trial.look(made.images)
    grouped = Grouped(folds=_folds(trial))
    for name in trial.experiment.detectors:
        with others_go_on(results, trial.seed, cell, name, role="identity"):
            judged = judge(trial, name, trial.normal, same, grouped)
            (auroc,) = (m.value for m in judged.measured if m.metric == "auroc")
            if abs(auroc - 0.5) > 1e-9:
                kind = Faulty if from_outside(trial.experiment, name) else GradbenchError
                raise kind(
                    f"identity control: {name} tells clean images from themselves (AUROC "
                    f"{100 * auroc:.2f} instead of 50), so its scores cannot be trusted"
                )
            results.add(trial.seed, cell, made.images, name, judged, "control", role="identity")


def _random_labels(trial: Trial, results: Results) -> None:
    """Fit every supervised detector on clean halves with arbitrary labels."""
    seed = trial.experiment.config["evaluation"]["seed"]
    ones = random_labels(trial.normal.images.groups, seed)
    normal, abnormal = (trial.normal.select(np.flatnonzero(rows)) for rows in (~ones, ones))
    cell, judged = Cell("random_labels", Identity()), {}
    for name in _supervised(trial):
        with others_go_on(results, trial.seed, cell, name, role="random_labels"):
            judged[name] = judge(trial, name, normal, abnormal)
    p_values = [rank_p(judgement) for judgement in judged.values()]
    results.add_random_labels(trial.seed, cell, abnormal.images, judged, p_values)


def rank_p(judged: Judged) -> float:
    """Return the two-sided p-value that scores tell the sides apart, ranked within folds.

    Images of one group count as one witness.
    """
    ranks, labels, groups = [], [], []
    for fold, (normal, abnormal) in zip(judged.scores, judged.groups):
        ranks.append(rankdata(np.concatenate([fold.normal, fold.abnormal])))
        ranks[-1] /= len(ranks[-1]) + 1
        labels.append(np.arange(len(ranks[-1])) >= len(fold.normal))
        groups.append(np.concatenate([normal, abnormal]))
    return mann_whitney_p(*(np.concatenate(parts) for parts in (ranks, labels, groups)))


def _round_trip(trial: Trial, cell: Cell, made: Made, results: Results) -> None:
    """Put clean images through what the other set went through, and measure them like it."""
    clean = stratified_subset(trial.images.normal, trial.experiment.config["controls"]["limit"])
    trip = Cell(f"round_trip:{cell.name}", cell.challenge)
    tripped = _tripped(trial, clean, made, cell.challenge)
    if tripped is None:
        reason = "its images have this shape and no processing of them is known"
        results.add_hole(trial.seed, trip, reason, "control", role="round_trip")
        return
    reference, other = trial.look(clean), trial.look(tripped)
    for name in trial.experiment.detectors:
        with others_go_on(results, trial.seed, trip, name, "control", "round_trip"):
            judged = judge(trial, name, reference, other)
            results.add(trial.seed, trip, tripped, name, judged, "control", role="round_trip")


def _tripped(trial: Trial, clean: ImageSet, made: Made, how: OtherSet) -> ImageSet | None:
    """Return clean images after the round trip, None if there is none; only digests are kept."""
    settings = (made.native, made.processing, how.filter, how.antialias, how.mode)
    workers = trial.experiment.data.workers

    def build(_folder: Path, _: Path) -> dict:
        images = round_trip(clean, *settings, workers)
        return {} if images is None else {"digests": images.digests, "note": images.note}

    key = Key("round_trip", 1, {"settings": settings}, {"images": clean.fingerprint})
    about = trial.store.make(key, build).about
    if "digests" not in about:
        return None

    def read(rows: np.ndarray) -> np.ndarray:
        return round_trip(clean.select(rows), *settings, workers).images

    images = LazyImages(read, clean.images.shape, about["digests"])
    return replace(clean, images=images, status="generated", note=about["note"])


def _random_split(trial: Trial, cell: Cell, normal: Seen, abnormal: Seen, results: Results) -> None:
    """Measure supervised detectors with images of one source on both sides of the split.

    Only where `grouped` keeps images together that a random split tears apart.
    """
    together = np.concatenate([normal.images.groups, abnormal.images.groups])
    if len(np.unique(together)) == len(together):
        return
    protocol = trial.experiment.protocol.ungrouped()
    for name in _supervised(trial):
        with others_go_on(results, trial.seed, None, name):  # what is missing is said above
            judged = judge(trial, name, normal, abnormal, protocol)
            results.add(trial.seed, cell, abnormal.images, name, judged, role="random_split")


def _supervised(trial: Trial) -> list[str]:
    experiment = trial.experiment
    return [n for n in experiment.detectors if experiment.detector(n).learns_from_challenges]


def _folds(trial: Trial) -> int:
    return trial.experiment.config["protocol"].get("folds", 5)
