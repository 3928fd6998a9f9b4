"""Does a score know the images that f was trained on?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradbench.challenges.controls import Identity
from gradbench.data.imageset import ImageSet
from gradbench.data.in_distribution import Provenance
from gradbench.data.roles import stratified_subset
from gradbench.run.experiment import Cell
from gradbench.run.faults import others_go_on
from gradbench.run.fitting import image_scores, score
from gradbench.run.results import Results
from gradbench.run.trial import Seen, Trial
from gradbench.statistics.metrics import auroc

CELL = Cell("memorisation", Identity())


def measure(trial: Trial, results: Results) -> None:
    """Add the AUROC of every detector for training images against clean ones f never saw.

    Up to `controls.limit` images of each, class-stratified: training images are the normal side
    and the hold-out the abnormal one, so 50 says that the score does not know its training images,
    more that they look more normal to it. Supervised detectors are those fitted on the first fold
    of the first challenge; one that was fitted on none has no row. Where f may have been trained on
    the hold-out too, a row says that there is nothing to compare.
    """
    limit, about = trial.experiment.config["controls"]["limit"], trial.images.provenance
    train, hold_out = (
        stratified_subset(s, limit) for s in (trial.images.train, trial.images.hold_out)
    )
    if not len(hold_out):
        results.add_hole(trial.seed, CELL, "there is no hold-out", "control", role="memorisation")
        return
    if not about.unseen:
        reason = "f may have been trained on the hold-out too"
        results.add_hole(trial.seed, CELL, reason, "control", role="memorisation")
        return
    sides = [trial.look(images) for images in (train, hold_out)]
    counts = len(train), len(hold_out)
    for name in trial.experiment.detectors:
        with others_go_on(results, trial.seed, CELL, name, role="memorisation"):
            found, note = _scores(trial, results, name, sides)
            if found:
                note = f"{_note(train, hold_out, about)}{note}"
                value = auroc(*_joined(*found))
                results.add_memorisation(trial.seed, CELL, name, value, counts, note)


def _scores(
    trial: Trial, results: Results, name: str, sides: Sequence[Seen]
) -> tuple[list[np.ndarray], str]:
    """Return a detector's scores of both sides and what it was fitted on; none if on nothing."""
    detector = trial.experiment.detector(name)
    if detector.learns_from_challenges:
        title, state = next(
            ((t, s) for (seed, t, n), s in results.states.items()
             if (seed, n) == (trial.seed, name)),
            ("", {}),
        )  # fmt: skip
        if not state:
            return [], ""
        detector.load(state)
        note = f"; {name}: fitted on {title}"
        return [score(trial, detector, side) for side in sides], note
    known = [
        where
        for where, reads in (
            ("these training images", detector.bank_reads),
            ("these hold-out images", detector.hold_out_reads or detector.synthetic),
        )
        if reads
    ]
    note = f"; {name}: fitted on {' and '.join(known)} among others" if known else ""
    return [image_scores(trial, name, side) for side in sides], note


def _joined(normal: np.ndarray, abnormal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores = np.concatenate([normal, abnormal])
    return scores, np.arange(len(scores)) >= len(normal)


def _note(train: ImageSet, hold_out: ImageSet, about: Provenance) -> str:
    was = "was" if about.trained else "may have been"
    without = " without the hold-out" if about.role == "train" else ""
    return (
        f"normal: {len(train)} images that f {was} trained on, {train.name}/{train.split}{without};"
        f" abnormal: {len(hold_out)} of the {about.hold_out_name}"
    )
