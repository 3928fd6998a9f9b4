"""The result of a case, and the measurement of a detector on a challenge.

A result holds facts alone and refers to kept scores. It depends on its case and on the network,
not on the cases that were evaluated before; rows are derived from results (`results.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from scipy.stats import rankdata
from torch import Tensor

from gradbench.challenges.base import Derived
from gradbench.data.imageset import join_notes
from gradbench.errors import Faulty, GradbenchError, MissingData
from gradbench.protocols.base import Protocol
from gradbench.run.cases import Case
from gradbench.run.context import ImagesWithOutputs, NetworkContext, Sides
from gradbench.run.experiment import Cell, Experiment, protocol_name
from gradbench.run.fitting import (
    FoldArrays,
    KeptScores,
    fitted,
    fold_fits,
    fold_scores,
    kept_state,
    transferred_scores,
)
from gradbench.run.synthetic import relation
from gradbench.statistics.bootstrap import BootstrapSamples
from gradbench.statistics.controls import mann_whitney_p
from gradbench.statistics.intervals import MetricEstimate
from gradbench.store import Key, Product
from gradbench.support.code_keys import is_external
from gradbench.support.external import describe_exception, external_line
from gradbench.support.instantiate import imported_targets
from gradbench.support.progress import step

MEASURES_VERSION = SAMPLES_VERSION = 2

Measure = Callable[["Case", NetworkContext], "CaseResult | None"]
"""Evaluates the cases of one role; None where there is nothing to measure."""


@dataclass(frozen=True)
class Threshold:
    """The largest score of a detector that is still called reliable.

    Attributes:
        value: of the score.
        images: of the hold-out that it was taken from.
        note: other uses that the detector made of these images.
    """

    value: float
    images: int
    note: str = ""


@dataclass(frozen=True)
class CaseResult:
    """The result of one case for one network.

    Attributes:
        case: the case.
        seed: that the experiment names for the network.
        protocol: name in rows; `random` says that twins were not kept together.
        source: status of the challenge's images.
        note: remarks on the images and the fit.
        estimates: the measures, fractions in [0, 1].
        samples: the headline measure in every resample, where the case is compared and averaged.
        scores: product that holds the scores of every fold, see `kept_scores`.
        fold_counts: measured images of every fold, (normal, abnormal).
        fold_digest: of the groups of all measured images, fold by fold and side by side.
        state: reads the state of the detector that was fitted on the first fold, or once for all
            challenges; None where there is none.
        related: a challenge of the detector's own that is like the measured one, in words.
        p: two-sided, that scores tell sides apart that do not differ (random labels).
        threshold: for new images.
        fault: why there is no number, empty where there is one.
        shared: the fault is not the method's: it is said once for all methods.
    """

    case: Case
    seed: int
    protocol: str = ""
    source: str = ""
    note: str = ""
    estimates: Sequence[MetricEstimate] = ()
    samples: BootstrapSamples | None = None
    scores: Product | None = None
    fold_counts: Sequence[tuple[int, int]] = ()
    fold_digest: str = ""
    state: Callable[[], Mapping[str, Tensor]] | None = None
    related: str = ""
    p: float | None = None
    threshold: Threshold | None = None
    fault: str = ""
    shared: bool = False

    @property
    def headline(self) -> MetricEstimate:
        """The estimate of the measure that is compared and averaged."""
        return self.estimates[0]


def settle(case: Case, context: NetworkContext, measure: Measure) -> CaseResult | None:
    """Return the result of a case by one of the functions below; once for each case.

    Raises:
        GradbenchError: if the identity control fails, or a product cannot be made.
    """
    if case not in context.evaluated:
        context.evaluated[case] = _result_or_fault(case, context, measure)
    return context.evaluated[case]


def _result_or_fault(case: Case, context: NetworkContext, measure: Measure) -> CaseResult | None:
    refused = context.experiment.refused
    try:
        if case.method in refused:
            sides_of(context, case.cell)  # of a missing challenge nothing is said but that
            return CaseResult(case, context.seed, fault=refused[case.method])
        return measure(case, context)
    except MissingChallenge:
        return None
    except GradbenchError as fault:
        if not isinstance(fault, Faulty):
            raise
        return CaseResult(case, context.seed, fault=str(fault))
    except Exception as fault:  # such as one of a property of a user's class
        if not (from_outside(context.experiment, case.method) and external_line(fault)):
            raise
        return CaseResult(
            case, context.seed, fault=f"detector {case.method} {describe_exception(fault)}"
        )


class MissingChallenge(Exception):
    """The images of a challenge are not there; the run says so once, whatever asks for them."""


def sides_of(context: NetworkContext, cell: Cell) -> Sides:
    """Return both sides of a challenge.

    Raises:
        MissingChallenge: if it cannot be measured.
    """
    try:
        return context.sides(cell)
    except (MissingData, Faulty) as reason:
        raise MissingChallenge(str(reason)) from reason


def main(case: Case, context: NetworkContext) -> CaseResult:
    """Measure a detector on a challenge, in the folds of the protocol."""
    sides, protocol = sides_of(context, case.cell), context.experiment.protocol
    return measured(case, context, sides.normal, sides.abnormal, protocol, compared=True)


def transfer(case: Case, context: NetworkContext) -> CaseResult | None:
    """Measure a detector that was fitted on one challenge on another; at home as `grouped` does."""
    within, name = context.experiment.protocol.within(), case.method
    sides = sides_of(context, case.cell)
    both = sides.normal, sides.abnormal
    if case.fitted_on == case.cell:
        _fold_fits(name, case.cell, context)  # while its images are at hand
        return measured(case, context, *both, within)
    home = settle(replace(case, cell=case.fitted_on), context, transfer)
    if home is None or home.fault:
        return None  # as the case at home says
    scores = transferred_scores(
        context, name, case.title, *_fold_fits(name, case.fitted_on, context), *both
    )
    own = [case.fitted_on] if isinstance(case.fitted_on.challenge, Derived) else []
    related = relation(own, case.cell)
    note = f"{case.title}: {related}" if related else ""
    return result_of(case, context, scores, context.experiment.protocol, note, compared=True)


def _fold_fits(name: str, cell, context: NetworkContext):
    """Return a detector fitted on a challenge, and the groups of the images it was fitted on."""
    if (name, cell) not in context.fits:
        sides = sides_of(context, cell)
        both = sides.normal, sides.abnormal
        fits = fold_fits(context, name, *both, context.experiment.protocol.within())
        context.fits[name, cell] = fits, tuple(side.images.groups for side in both)
    return context.fits[name, cell]


def measured(
    case: Case,
    context: NetworkContext,
    normal: ImagesWithOutputs,
    abnormal: ImagesWithOutputs,
    protocol: Protocol,
    **wanted: bool,
) -> CaseResult:
    """Fit a detector as a protocol says, and measure its scores."""
    scores = fold_scores(context, case.method, normal, abnormal, protocol)
    return result_of(case, context, scores, protocol, **wanted)


def result_of(
    case: Case,
    context: NetworkContext,
    scores: KeptScores,
    protocol: Protocol,
    note: str = "",
    compared: bool = False,
    ranked: bool = False,
) -> CaseResult:
    """Return the result of a case whose scores are there.

    Args:
        case: the case.
        context: the network.
        scores: of every fold.
        protocol: that divided the images.
        note: remark on the fit.
        compared: the headline is compared with those of others, and averaged.
        ranked: a rank test is wanted.
    """
    experiment, detector = context.experiment, context.experiment.detector(case.method)
    related = relation(experiment.own_cells(case.method), case.cell)
    state = None
    if detector.learns_from_challenges:
        at_home = case.fitted_on in (None, case.cell)
        has_state = at_home and kept_state(scores.product)
        state = partial(kept_state, scores.product) if has_state else None
    elif case.role == "main":
        tensors = fitted(context, case.method)[1]
        state = partial(dict, tensors) if tensors else None
    normal, abnormal = scores.images
    task = context.experiment.task
    targets = scores.by_fold(task.target(normal, False), task.target(abnormal, True))
    groups = scores.groups
    return CaseResult(
        case,
        context.seed,
        protocol_name(protocol),
        abnormal.status,
        join_notes(abnormal.note, note, related and f"{case.title}: {related}"),
        _estimates(context, scores, targets, protocol.repeats),
        samples=_samples(context, scores, targets) if compared else None,
        scores=scores.product,
        fold_counts=[tuple(map(len, fold)) for fold in groups],
        fold_digest=_digest(groups),
        state=state,
        related=related,
        p=rank_p(scores) if ranked else None,
    )


def _digest(folds: FoldArrays) -> str:
    found = hashlib.sha256()
    for groups in (side for fold in folds for side in fold):
        found.update("\n".join([*map(str, groups), ""]).encode() + b"\0")
    return found.hexdigest()


def _estimates(
    context: NetworkContext, scores: KeptScores, targets: FoldArrays, repeats: int
) -> list[MetricEstimate]:
    """Return the measures of scores; kept or computed."""
    settings = context.experiment.config["evaluation"]
    drawn = {name: settings[name] for name in ("replicates", "confidence", "seed")}

    def build(folder: Path, _: Path) -> dict:
        folds = scores.folds()
        found = context.experiment.task.estimates(folds, targets, **drawn, repeats=repeats)
        (folder / "measures.json").write_text(json.dumps([asdict(e) for e in found], indent=1))
        return {}

    config = drawn | {"half": scores.half} | ({"repeats": repeats} if repeats > 1 else {})
    with step(f"intervals from {settings['replicates']} resamples"):
        key = Key("measures", MEASURES_VERSION, config, scores.digests)
        kept = context.store.make(key, build)
    return [
        MetricEstimate(**(estimate | {"per_fold": tuple(estimate["per_fold"])}))
        for estimate in json.loads(kept.path("measures.json").read_text())
    ]


def _samples(context: NetworkContext, scores: KeptScores, targets: FoldArrays) -> BootstrapSamples:
    """Return the resamples that differences and means are taken of; kept or computed."""
    settings = {k: context.experiment.config["evaluation"][k] for k in ("replicates", "seed")}

    def build(folder: Path, _: Path) -> dict:
        found = context.experiment.task.samples(scores.folds(), targets, **settings)
        arrays = {"per_fold": found.per_fold, "samples": found.samples}
        save_arrays(arrays, str(folder / "resamples.safetensors"))
        return {}

    with step(f"bootstrap: {settings['replicates']} resamples"):
        key = Key("resamples", SAMPLES_VERSION, settings, scores.digests)
        kept = context.store.make(key, build)
    found = load_arrays(str(kept.path("resamples.safetensors")))
    return BootstrapSamples(found["per_fold"], found["samples"])


def from_outside(experiment: Experiment, name: str) -> bool:
    """Tell whether a detector, or the function that builds it, is not gradbench's."""
    target = experiment.detectors[name]["_target_"]
    return is_external(*imported_targets(target), experiment.detector(name))


def rank_p(scores: KeptScores) -> float:
    """Return the two-sided p that scores tell the sides apart, ranked within folds.

    Images of one group count as one witness.
    """
    ranks, labels, groups = [], [], []
    for fold in scores.folds():
        ranks.append(rankdata(np.concatenate([fold.normal, fold.abnormal])))
        ranks[-1] /= len(ranks[-1]) + 1
        labels.append(np.arange(len(ranks[-1])) >= len(fold.normal))
        groups.append(np.concatenate([fold.normal_groups, fold.abnormal_groups]))
    return mann_whitney_p(*(np.concatenate(parts) for parts in (ranks, labels, groups)))
