"""The result of a case, and the measurement of scores.

A result holds facts alone and refers to kept scores. It depends on its case and on the network,
not on the cases that were evaluated before; rows are derived from results (`results.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from scipy.stats import rankdata
from torch import Tensor

from gradbench.data.imageset import Listed, join_notes
from gradbench.protocols.base import Protocol
from gradbench.run.cases import Case
from gradbench.run.context import ImagesWithOutputs, NetworkContext
from gradbench.run.fitting import FoldArrays, KeptScores, fitted, fold_scores, kept_state
from gradbench.run.synthetic import relation
from gradbench.statistics.bootstrap import BootstrapSamples
from gradbench.statistics.controls import mann_whitney_p
from gradbench.statistics.intervals import MetricEstimate
from gradbench.store import Key, Product
from gradbench.support.progress import step

MEASURES_VERSION = SAMPLES_VERSION = 2


@dataclass(frozen=True)
class Threshold:
    """The largest score of a detector that is still called reliable.

    With the number of hold-out images that it was taken from, and other uses of these.
    """

    value: float
    images: int
    note: str = ""


@dataclass(frozen=True)
class CaseResult:
    """The result of one case for the network of a seed.

    Attributes:
        protocol: name in rows; `random` says that twins were not kept together.
        source: status of the challenge's images.
        note: remarks on the images and the fit.
        estimates: the measures, fractions in [0, 1]; the first is compared and averaged.
        samples: the first measure in every resample, where the case is compared and averaged.
        scores: product that holds the scores of every fold, see `fitting.KeptScores`.
        fold_counts: measured images of every fold, (normal, abnormal).
        fold_digest: of the groups of all measured images, fold by fold and side by side.
        state: reads the state of the detector that was fitted on the first fold, or once for all
            challenges; None where there is none.
        related: a challenge of the detector's own that is like the measured one, in words.
        p: two-sided, that scores tell sides apart that do not differ (random labels).
        threshold: for new images.
        listed: what is at hand of the published list of the challenge's images, if there is one.
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
    listed: Listed | None = None
    fault: str = ""
    shared: bool = False

    @property
    def headline(self) -> MetricEstimate:
        """The estimate of the measure that is compared and averaged."""
        return self.estimates[0]


def measured(
    case: Case,
    context: NetworkContext,
    normal: ImagesWithOutputs,
    abnormal: ImagesWithOutputs,
    protocol: Protocol,
    every_state: bool = False,
    **wanted: bool,
) -> CaseResult:
    """Fit a detector as a protocol says, and measure its scores; see `result_of`."""
    scores = fold_scores(context, case.method, normal, abnormal, protocol, every_state)
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
    """Return the result of a case whose scores are there, in the folds of a protocol.

    With `compared`, its headline is compared with those of others and averaged; with `ranked`,
    there is a rank test.
    """
    experiment, detector = context.experiment, context.experiment.detector(case.method)
    related = relation(experiment.own_cells(case.method), case.cell)
    of_members = ""
    if detector.reads_members:
        seeds = ", ".join(map(str, experiment.seeds))
        of_members = f"one score for seeds {seeds} together"
    state = None
    if detector.learns_from_challenges:
        if case.fitted_on in (None, case.cell) and kept_state(scores.product):
            state = partial(kept_state, scores.product)
    elif case.role == "main":
        tensors = fitted(context, case.method)[1]
        state = partial(dict, tensors) if tensors else None
    normal, abnormal = scores.images
    task, groups = experiment.task, scores.groups
    targets = scores.by_fold(task.target(normal, False), task.target(abnormal, True))
    return CaseResult(
        case,
        context.seed,
        protocol.title,
        abnormal.status,
        join_notes(
            abnormal.note,
            note,
            related and f"{case.title}: {related}",
            of_members and f"{case.title}: {of_members}",
        ),
        _estimates(context, scores, targets, protocol.repeats),
        samples=_samples(context, scores, targets) if compared else None,
        scores=scores.product,
        fold_counts=[tuple(map(len, fold)) for fold in groups],
        fold_digest=_digest(groups),
        state=state,
        related=related,
        p=rank_p(scores) if ranked else None,
        listed=abnormal.listed if case.role == "main" else None,
    )


def _digest(folds: FoldArrays) -> str:
    sha = hashlib.sha256()
    for groups in (side for fold in folds for side in fold):
        sha.update("\n".join([*map(str, groups), ""]).encode() + b"\0")
    return sha.hexdigest()


def _estimates(
    context: NetworkContext, scores: KeptScores, targets: FoldArrays, repeats: int
) -> list[MetricEstimate]:
    """Return the measures of scores; kept or computed."""
    task, settings = context.experiment.task, context.experiment.evaluation

    def build(folder: Path, _: Path) -> dict:
        estimates = task.estimates(scores.folds(), targets, settings, repeats)
        (folder / "measures.json").write_text(json.dumps([asdict(e) for e in estimates], indent=1))
        return {}

    config = (
        asdict(settings) | {"half": scores.half} | ({"repeats": repeats} if repeats > 1 else {})
    )
    with step(f"intervals from {settings.replicates} resamples"):
        # the key holds the scores, not the case: equal scores are measured once
        product = context.store.make(
            Key("measures", MEASURES_VERSION, config, scores.digests), build
        )
    return [
        MetricEstimate(**(estimate | {"per_fold": tuple(estimate["per_fold"])}))
        for estimate in json.loads(product.path("measures.json").read_text())
    ]


def _samples(context: NetworkContext, scores: KeptScores, targets: FoldArrays) -> BootstrapSamples:
    """Return the resamples that differences and means are taken of; kept or computed."""
    task, settings = context.experiment.task, context.experiment.evaluation

    def build(folder: Path, _: Path) -> dict:
        arrays = asdict(task.samples(scores.folds(), targets, settings))
        save_arrays(arrays, str(folder / "resamples.safetensors"))
        return {}

    config = {"replicates": settings.replicates, "seed": settings.seed}
    with step(f"bootstrap: {settings.replicates} resamples"):
        product = context.store.make(
            Key("resamples", SAMPLES_VERSION, config, scores.digests), build
        )
    return BootstrapSamples(**load_arrays(str(product.path("resamples.safetensors"))))


def rank_p(scores: KeptScores) -> float:
    """Return the two-sided p that scores tell the sides apart; images of a group count once."""
    ranks, labels, groups = [], [], []
    for fold in scores.folds():
        # within a fold: scores of different fits have different scales
        ranks.append(rankdata(np.concatenate([fold.normal, fold.abnormal])))
        ranks[-1] /= len(ranks[-1]) + 1
        labels.append(np.arange(len(ranks[-1])) >= len(fold.normal))
        groups.append(np.concatenate([fold.normal_groups, fold.abnormal_groups]))
    return mann_whitney_p(*(np.concatenate(parts) for parts in (ranks, labels, groups)))
