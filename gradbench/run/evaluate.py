"""Evaluates a case: one function for each role, of the measurements, the controls, the thresholds.

identity: a challenge of strength zero must be at chance for every detector (its pixels and outputs
are compared in `run`). random_labels: a supervised detector fitted on clean images with arbitrary
labels must stay at chance. round_trip: clean images through the resampling and JPEG of another set
tell how much of a detector's success on that set is resampling. random_split: images of one source
on both sides of the split show the leak that `grouped` avoids. memorisation: training images
against clean ones that f was not trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from gradbench.challenges.base import Derived
from gradbench.challenges.other_set import OtherSet
from gradbench.data import resample
from gradbench.data.imageset import ImageSet, LazyImages, join_notes
from gradbench.data.roles import draw_hold_out, stratified_subset
from gradbench.errors import Faulty, GradbenchError, MissingData
from gradbench.protocols.base import Grouped
from gradbench.protocols.presets import Transfer
from gradbench.run.cases import Case
from gradbench.run.challenge_images import ChallengeImages
from gradbench.run.context import NetworkContext, Sides
from gradbench.run.experiment import Cell, Experiment
from gradbench.run.fitting import fitted, image_scores, score, transferred_scores
from gradbench.run.measurement import CaseResult, Threshold, measured, result_of
from gradbench.run.synthetic import relation
from gradbench.statistics import controls as chance
from gradbench.statistics.intervals import MetricEstimate
from gradbench.statistics.metrics import auroc
from gradbench.store import Key
from gradbench.support.code_keys import is_external
from gradbench.support.external import describe_exception, external_line
from gradbench.support.instantiate import imported_targets

KEPT = 95
"""Percent of the hold-out that a threshold calls reliable, at least."""
FEWER = 500
"""Hold-out images, at most, for detectors that make passes of their own over every image."""


class MissingChallenge(Exception):
    """The images of a challenge are not there; the run says so once, whatever asks for them."""


def evaluate(case: Case, context: NetworkContext) -> CaseResult | None:
    """Return the result of a case; every product that the store holds is taken from there.

    A fault of a detector from outside, and a challenge that cannot be measured, are results: the
    other cases go on. A case that others need is evaluated once.

    Returns:
        None where there is nothing to measure: the challenge is missing, as the run says once, or
        a control does not apply to these images.

    Raises:
        GradbenchError: if the identity control fails, or a product cannot be made.
    """
    return context.once(case, lambda: _result_or_fault(case, context))


def _result_or_fault(case: Case, context: NetworkContext) -> CaseResult | None:
    experiment = context.experiment
    try:
        if case.method in experiment.refused:
            _sides(context, case.cell)  # of a missing challenge nothing is said but that
            return CaseResult(case, context.seed, fault=experiment.refused[case.method])
        return ROLES[case.role](case, context)
    except MissingChallenge:
        return None
    except Faulty as fault:
        return CaseResult(case, context.seed, fault=str(fault))
    except GradbenchError:
        raise
    except Exception as fault:  # such as one of a property of a user's class
        if not (_from_outside(experiment, case.method) and external_line(fault)):
            raise
        reason = f"detector {case.method} {describe_exception(fault)}"
        return CaseResult(case, context.seed, fault=reason)


def _from_outside(experiment: Experiment, name: str) -> bool:
    """Tell whether a detector, or the function that builds it, is not gradbench's."""
    target = experiment.detectors[name]["_target_"]
    return is_external(*imported_targets(target), experiment.detector(name))


def _sides(context: NetworkContext, cell: Cell) -> Sides:
    try:
        return context.sides(cell)
    except (MissingData, Faulty) as reason:
        raise MissingChallenge(str(reason)) from reason


def _main(case: Case, context: NetworkContext) -> CaseResult:
    """Measure a detector on a challenge, in the folds of the protocol."""
    sides, protocol = _sides(context, case.cell), context.experiment.protocol
    return measured(case, context, sides.normal, sides.abnormal, protocol, compared=True)


def _transfer(case: Case, context: NetworkContext) -> CaseResult | None:
    """Measure a detector that was fitted on one challenge on another; at home as `grouped` does."""
    protocol, sides = context.experiment.protocol, _sides(context, case.cell)
    both = sides.normal, sides.abnormal
    groups = context.once(("groups", case.cell), lambda: tuple(s.images.groups for s in both))
    if case.fitted_on == case.cell:
        return measured(case, context, *both, protocol.within(), every_state=True)
    home = evaluate(replace(case, cell=case.fitted_on), context)
    if home is None or home.fault:
        return None  # as the case at home says
    # groups were kept at home: its images would push others out of memory
    groups = context.known["groups", case.fitted_on]
    scores = transferred_scores(context, case.method, case.title, home.scores, groups, *both)
    fitted_on = [case.fitted_on] if isinstance(case.fitted_on.challenge, Derived) else []
    related = relation(fitted_on, case.cell)
    note = f"{case.title}: {related}" if related else ""
    return result_of(case, context, scores, protocol, note, compared=True)


def _identity(case: Case, context: NetworkContext) -> CaseResult:
    """Send unchanged images through a detector: it must be at chance."""
    same = context.read_outputs(context.challenge(case.cell).images)
    # twins must stay on one side whatever the protocol
    grouped = Grouped(folds=getattr(context.experiment.protocol, "count", 5))
    result = measured(case, context, context.normal, same, grouped)
    if abs(result.headline.value - 0.5) > 1e-9:
        outside = _from_outside(context.experiment, case.method)
        raise (Faulty if outside else GradbenchError)(
            f"identity control: {case.method} tells clean images from themselves (AUROC "
            f"{100 * result.headline.value:.2f} instead of 50), so its scores cannot be trusted"
        )
    return result


def _random_labels(case: Case, context: NetworkContext) -> CaseResult:
    """Fit a supervised detector on clean halves with arbitrary labels: it must stay at chance."""
    seed = context.experiment.evaluation.seed
    ones = chance.random_labels(context.normal.images.groups, seed)
    halves = [context.normal.select(np.flatnonzero(rows)) for rows in (~ones, ones)]
    return measured(case, context, *halves, context.experiment.protocol, ranked=True)


def _round_trip(case: Case, context: NetworkContext) -> CaseResult:
    """Put clean images through the resampling of another set, and measure them like it."""
    made = _sides(context, case.cell).challenge
    limit = context.experiment.settings.controls.limit
    clean = stratified_subset(context.images.normal, limit)
    tripped = _resampled_images(context, clean, made, case.cell.challenge)
    if tripped is None:
        reason = "its images have this shape and no processing of them is known"
        return CaseResult(case, context.seed, fault=reason, shared=True)
    both = context.read_outputs(clean), context.read_outputs(tripped)
    return measured(case, context, *both, context.experiment.protocol)


def _resampled_images(
    context: NetworkContext, clean: ImageSet, made: ChallengeImages, how: OtherSet
) -> ImageSet | None:
    """Return clean images after the round trip, None if there is none; only digests are kept."""
    settings = (made.native_shape, made.processing, how.filter, how.antialias, how.mode)
    workers = context.experiment.data.workers

    def build(_folder: Path, _: Path) -> dict:
        images = resample.round_trip(clean, *settings, workers)
        return {} if images is None else {"digests": images.digests, "note": images.note}

    key = Key("round_trip", 1, {"settings": settings}, {"images": clean.fingerprint})
    about = context.store.make(key, build).about
    if "digests" not in about:
        return None

    def read(rows: np.ndarray) -> np.ndarray:
        return resample.round_trip(clean.select(rows), *settings, workers).images

    images = LazyImages(read, clean.images.shape, about["digests"])
    return replace(clean, images=images, status="generated", note=about["note"])


def _random_split(case: Case, context: NetworkContext) -> CaseResult | None:
    """Measure a detector with images of one source on both sides of the split.

    The gap to the main result is the leak. Only where a random split parts images of one source.
    """
    sides = _sides(context, case.cell)
    together = np.concatenate([s.images.groups for s in (sides.normal, sides.abnormal)])
    if len(np.unique(together)) == len(together):
        return None
    protocol = context.experiment.protocol.ungrouped()
    return measured(case, context, sides.normal, sides.abnormal, protocol)


def _memorisation(case: Case, context: NetworkContext) -> CaseResult | None:
    """Measure a detector on training images (normal) against clean images that f never saw.

    Up to `controls.limit` images of each, class-stratified: 50 says that the score does not know
    f's training images, more that they look more normal to it. A supervised detector is the one
    fitted on the first fold of the first challenge; one that was fitted on none has no row.
    """
    images, about = context.images, context.images.provenance
    limit = context.experiment.settings.controls.limit
    train, held = (stratified_subset(part, limit) for part in (images.train, images.hold_out))
    if not len(held) or not about.unseen:
        reason = "f may have been trained on the hold-out too"
        reason = reason if len(held) else "there is no hold-out"
        return CaseResult(case, context.seed, fault=reason, shared=True)
    both = [context.read_outputs(part) for part in (train, held)]
    detector = context.experiment.detector(case.method)
    if detector.learns_from_challenges:
        first = _first_fit(case.method, context)
        if first is None:
            return None
        detector.load(first.state())
        scores = [score(context, detector, side) for side in both]
        note = f"; {case.method}: fitted on {first.case.cell.title}"
    else:
        scores = [image_scores(context, case.method, side) for side in both]
        known = ["these training images"] if detector.bank_reads else []
        if detector.hold_out_reads or detector.synthetic:
            known.append("these hold-out images")
        note = f"; {case.method}: fitted on {' and '.join(known)} among others" if known else ""
    was = "was" if about.trained else "may have been"
    without = " without the hold-out" if about.role == "train" else ""
    note = (
        f"normal: {len(train)} images that f {was} trained on, {train.name}/{train.split}{without};"
        f" abnormal: {len(held)} of the {about.hold_out_name}{note}"
    )
    value = auroc(np.concatenate(scores), np.repeat([False, True], [*map(len, scores)]))
    estimate = MetricEstimate(
        "auroc", "", "", value, np.nan, np.nan, (value,), len(train), len(held)
    )
    protocol = context.experiment.protocol.title
    return CaseResult(case, context.seed, protocol, note=note, estimates=(estimate,))


def _first_fit(name: str, context: NetworkContext) -> CaseResult | None:
    """Return the result of the first challenge that a supervised detector could be fitted on."""
    results = (_fit_on(name, cell, context) for cell in context.experiment.cells)
    return next((result for result in results if result is not None), None)


def _fit_on(name: str, cell: Cell, context: NetworkContext) -> CaseResult | None:
    """Return the result of a challenge that a supervised detector was fitted on, with its state."""
    across = isinstance(context.experiment.protocol, Transfer)
    case = Case("transfer", cell, name, cell) if across else Case("main", cell, name)
    result = evaluate(case, context)
    return result if result is not None and result.state is not None else None


def _threshold(case: Case, context: NetworkContext) -> CaseResult | None:
    """Take the score that 95 % of the hold-out do not exceed, for judging new images.

    From up to `model.hold_out` images, a class-stratified part that is read by one pass;
    detectors that make passes of their own take a part of that.
    """
    clean = stratified_subset(context.images.hold_out, context.experiment.settings.model.hold_out)
    if not len(clean):
        return None
    if case.fitted_on is None:
        detector, tensors = fitted(context, case.method)
        state = partial(dict, tensors) if tensors else None
    else:
        fit = _fit_on(case.method, case.fitted_on, context)
        if fit is None:
            return None
        state = fit.state
        detector = context.experiment.detector(case.method).load(state())
    images = context.read_outputs(clean)
    if detector.perturbed_passes and len(clean) > FEWER:
        images = images.select(np.flatnonzero(draw_hold_out(clean.labels, clean.groups, FEWER)))
    if case.fitted_on is None:
        scores = image_scores(context, case.method, images)
    else:
        scores = score(context, detector, images)
    knows = detector.hold_out_reads or detector.synthetic
    note = join_notes(
        context.images.provenance.threshold_note,
        "fitted on these images among others" if knows else "",
    )
    threshold = Threshold(keeping(scores), len(scores), note)
    return CaseResult(case, context.seed, state=state, threshold=threshold)


def keeping(scores: np.ndarray, percent: int = KEPT) -> float:
    """Return the smallest score that at least so many percent of the scores do not exceed.

    >>> keeping(np.arange(1, 101))
    95.0
    >>> keeping(np.arange(1, 11))
    10.0
    """
    place = -(-percent * len(scores) // 100) - 1  # in whole numbers: 0.95 is not exact
    return float(np.sort(scores)[place])


ROLES: Mapping[str, Callable[[Case, NetworkContext], CaseResult | None]] = {
    "main": _main,
    "transfer": _transfer,
    "identity": _identity,
    "random_labels": _random_labels,
    "round_trip": _round_trip,
    "random_split": _random_split,
    "memorisation": _memorisation,
    "threshold": _threshold,
}
"""The function of each role: a new control is one more role here and in `cases`."""
