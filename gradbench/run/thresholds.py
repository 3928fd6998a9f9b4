"""Thresholds of a run's detectors on the hold-out, for verdicts on new images."""

from __future__ import annotations

from functools import partial

import numpy as np

from gradbench.data.imageset import ImageSet, join_notes
from gradbench.data.roles import draw_hold_out, stratified_subset
from gradbench.methods.base import Detector
from gradbench.run.faults import others_go_on
from gradbench.run.fitting import fitted, image_scores, score
from gradbench.run.results import Results
from gradbench.run.trial import Seen, Trial
from gradbench.run.verdict import Threshold

KEPT = 95
"""Percent of the hold-out that a threshold calls reliable, at least."""
FEWER = 500
"""Hold-out images, at most, for detectors that look at every image again."""


def keeping(scores: np.ndarray, percent: int = KEPT) -> float:
    """Return the smallest score that at least so many percent of the scores do not exceed.

    >>> keeping(np.arange(1, 101))
    95.0
    >>> keeping(np.arange(1, 11))
    10.0
    """
    place = -(-percent * len(scores) // 100) - 1  # in whole numbers: 0.95 is not exact
    return float(np.sort(scores)[place])


def measure(trial: Trial, results: Results) -> None:
    """Note the threshold of every fitted detector, from up to `model.hold_out` hold-out images.

    The images are a class-stratified part of the hold-out, read by one pass that the memorisation
    control shares where it takes as many; detectors that look at images again take a part of
    that. Without a hold-out, or with `model.hold_out=0`, there are no thresholds.
    """
    limit = trial.experiment.config["model"]["hold_out"]
    clean = stratified_subset(trial.images.hold_out, limit)
    if not limit or not len(clean):
        return
    many = trial.look(clean)
    few = many if len(clean) <= FEWER else many.select(fewer(clean))
    for name in trial.experiment.detectors:
        with others_go_on(results, trial.seed, None, name):
            _of_detector(trial, results, name, many, few)


def _of_detector(trial: Trial, results: Results, name: str, many: Seen, few: Seen) -> None:
    detector = trial.experiment.detector(name)
    known = "fitted on these images among others" if _knows(detector) else ""
    known = join_notes(trial.images.provenance.threshold_note, known)
    if not detector.learns_from_challenges:
        key = (trial.seed, "", name)
        detector, state = fitted(trial, name)
        if state and key not in results.states:  # no challenge was at hand
            results.states.add(key, partial(dict, state))
        scores = image_scores(trial, name, _seen(detector, many, few))
        results.thresholds[key] = _threshold(scores, known)
        return
    for key in [k for k in results.states if (k[0], k[2]) == (trial.seed, name)]:
        detector = trial.experiment.detector(name).load(results.states[key])
        scores = score(trial, detector, _seen(detector, many, few))
        results.thresholds[key] = _threshold(scores, known)


def fewer(clean: ImageSet) -> np.ndarray:
    """Return the rows of those hold-out images that detectors look at again."""
    if len(clean) <= FEWER:
        return np.arange(len(clean))
    return np.flatnonzero(draw_hold_out(clean.labels, clean.groups, FEWER))


def _seen(detector: Detector, many: Seen, few: Seen) -> Seen:
    return few if detector.perturbed_passes else many


def _knows(detector: Detector) -> bool:
    return bool(detector.hold_out_reads or detector.synthetic)


def _threshold(scores: np.ndarray, note: str) -> Threshold:
    return Threshold(keeping(scores), len(scores), note)
