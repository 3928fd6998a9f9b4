"""Steps 4 and 5 for one detector on one challenge: fit and score every fold, then measure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file
from torch import Tensor

from gradbench.data.imageset import ImageSet
from gradbench.methods.fold_scores import PARTS, Scores, divide_by_fold, score_folds
from gradbench.outputs.cached_passes import VERSION as PERTURBED_VERSION
from gradbench.outputs.cached_passes import seconds_of_passes
from gradbench.protocols.base import Protocol
from gradbench.run.experiment import protocol_name
from gradbench.run.fitting import clean, described, fit_key, fitted, image_scores
from gradbench.run.trial import Seen, Trial
from gradbench.statistics.bootstrap import BootstrapSamples, FoldScores, bootstrap_auroc
from gradbench.statistics.exact_bounds import check_bounds
from gradbench.statistics.intervals import MetricEstimate, measure_detection
from gradbench.store import Key, Product, file_digest
from gradbench.support.code_keys import code_key
from gradbench.support.progress import step
from gradbench.support.tensors import save_tensors

SCORES_VERSION = 1
MEASURES_VERSION = 2
SAMPLES_VERSION = 2


@dataclass(frozen=True)
class Judged:
    """What a detector gave on one challenge.

    Attributes:
        protocol: name in rows: the protocol's, or `random` for a random split.
        scores: of every fold.
        groups: of the measured images of every fold, (normal, abnormal).
        state: of the detector fitted on the first fold, or once for all challenges.
        measured: metrics with intervals, fractions in [0, 1].
        of: names the scores in the keys of what is made from them.
        half: score at which the detector itself says 0.5.
        product: where the scores are kept, and the state of a detector fitted on the first fold.
    """

    protocol: str
    scores: list[Scores]
    groups: list[tuple[np.ndarray, np.ndarray]]
    state: dict[str, Tensor]
    measured: list[MetricEstimate]
    of: Mapping[str, str]
    half: float | None
    product: Product

    @property
    def folds(self) -> list[FoldScores]:
        """The scores with the groups of their images."""
        return _folds(self.scores, self.groups, self.half)


def judge(
    trial: Trial, name: str, normal: Seen, abnormal: Seen, protocol: Protocol | None = None
) -> Judged:
    """Fit a detector on every fold, score it and measure it; kept products are not made again.

    Args:
        trial: the network and what belongs to it.
        name: of the detector.
        normal: the normal side.
        abnormal: the abnormal side.
        protocol: other than the experiment's.

    Raises:
        GradbenchError: if the images do not fill the folds, or measures contradict each other.
    """
    experiment = trial.experiment
    protocol = protocol or experiment.protocol
    settings = experiment.config["evaluation"]
    folds = protocol.folds(normal.images.groups, abnormal.images.groups, settings["seed"])
    key = scores_key(trial, name, normal.images, abnormal.images, protocol)

    supervised = experiment.detector(name).learns_from_challenges

    def fit(folder: Path, _: Path) -> dict:
        before = seconds_of_passes(trial.store)
        if supervised:
            scores, state = score_folds(
                lambda: experiment.detector(name),
                normal.outputs,
                abnormal.outputs,
                folds,
                experiment.config["detector"]["seed"],
                clean(trial, name),
                [trial.again(side.images) for side in (normal, abnormal)],
            )
        else:  # its state is a product of its own, one for all challenges
            sides = (image_scores(trial, name, side) for side in (normal, abnormal))
            scores, state = divide_by_fold(*sides, folds), {}
        arrays = {f"{i}/{part}": getattr(s, part) for i, s in enumerate(scores) for part in PARTS}
        save_arrays(
            {n: np.ascontiguousarray(a, dtype=np.float64) for n, a in arrays.items()},
            str(folder / "scores.safetensors"),
        )
        save_tensors(state, folder / "state.safetensors")
        return {
            "detector": name,
            "images": len(normal.images) + len(abnormal.images),
            "seconds_of_passes": round(seconds_of_passes(trial.store) - before, 3),
        }

    with step(f"{name}: fit and scores on {abnormal.images.name}"):
        product = trial.store.make(key, fit)
    kept = load_file(str(product.path("scores.safetensors")))
    scores = [Scores(*(kept[f"{i}/{part}"].numpy() for part in PARTS)) for i in range(len(folds))]
    groups = [
        (
            normal.images.groups[fold.measure.normal],
            abnormal.images.groups[fold.measure.abnormal],
        )
        for fold in folds
    ]
    own = load_file(str(product.path("state.safetensors")))
    state = own if supervised else fitted(trial, name)[1]
    return judged_scores(trial, name, protocol, product, scores, groups, state)


def judged_scores(
    trial: Trial, name: str, protocol: Protocol, product: Product, scores, groups, state
) -> Judged:
    """Measure scores that a product holds, see `Judged`; kept measures are not made again."""
    of = {"scores": file_digest(product.path("scores.safetensors")), "of": product.folder.name}
    half = trial.experiment.detector(name).half
    measured = _measured(trial, _folds(scores, groups, half), of, protocol.repeats)
    return Judged(protocol_name(protocol), scores, groups, state, measured, of, half, product)


def kept_scores(product: Product) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the kept scores of the measured images of every fold, (normal, abnormal)."""
    kept = load_file(str(product.path("scores.safetensors")))
    count = len({name.split("/")[0] for name in kept})
    sides = ("normal", "abnormal")
    return [tuple(kept[f"{i}/{side}"].numpy() for side in sides) for i in range(count)]


def kept_state(product: Product) -> dict[str, Tensor]:
    """Return the kept state of a detector that was fitted on the first fold."""
    return load_file(str(product.path("state.safetensors")))


def resampled(trial: Trial, judged: Judged) -> BootstrapSamples:
    """Return AUROC in resamples that differences and means are taken of; kept or made."""
    settings = {k: trial.experiment.config["evaluation"][k] for k in ("replicates", "seed")}

    def draw(folder: Path, _: Path) -> dict:
        found = bootstrap_auroc(judged.folds, **settings)
        arrays = {"per_fold": found.per_fold, "samples": found.samples}
        save_arrays(arrays, str(folder / "resamples.safetensors"))
        return {}

    with step(f"bootstrap: {settings['replicates']} resamples"):
        kept = trial.store.make(Key("resamples", SAMPLES_VERSION, settings, dict(judged.of)), draw)
    found = load_arrays(str(kept.path("resamples.safetensors")))
    return BootstrapSamples(found["per_fold"], found["samples"])


def _folds(scores, groups, half: float | None) -> list[FoldScores]:
    return [
        FoldScores(
            normal=s.normal,
            normal_groups=normal,
            abnormal=s.abnormal,
            abnormal_groups=abnormal,
            choose_normal=s.choose_normal,
            choose_abnormal=s.choose_abnormal,
            half=half,
        )
        for s, (normal, abnormal) in zip(scores, groups)
    ]


def _measured(
    trial: Trial, folds: list[FoldScores], of: Mapping[str, str], repeats: int
) -> list[MetricEstimate]:
    """Return the measures of a detector's scores, kept or made."""
    settings = trial.experiment.config["evaluation"]
    drawn = {k: settings[k] for k in ("replicates", "confidence", "seed")}

    def evaluate(folder: Path, _: Path) -> dict:
        found = measure_detection(folds, **drawn, repeats=repeats)
        _check(found)
        (folder / "measures.json").write_text(json.dumps([asdict(m) for m in found], indent=1))
        return {}

    config = drawn | {"half": folds[0].half} | ({"repeats": repeats} if repeats > 1 else {})
    with step(f"intervals from {settings['replicates']} resamples"):
        kept = trial.store.make(Key("measures", MEASURES_VERSION, config, dict(of)), evaluate)
    return [
        MetricEstimate(**(m | {"per_fold": tuple(m["per_fold"])}))
        for m in json.loads(kept.path("measures.json").read_text())
    ]


def _check(measured: list[MetricEstimate]) -> None:
    """Stop where measures of the same images contradict each other (methods.md, a.9)."""
    value = {(m.metric, m.side, m.threshold_rule): m for m in measured}
    auroc = next(m for m in measured if m.metric == "auroc")
    best = next(m for k, m in value.items() if k[0] == "detection_accuracy" and k[2] == "best")
    smallest = min(auroc.n_normal, auroc.n_abnormal)
    for side in ("normal", "abnormal"):
        check_bounds(auroc.value, best.value, smallest, value["fpr95", side, ""].value)


def scores_key(trial: Trial, name: str, normal: ImageSet, abnormal: ImageSet, protocol) -> Key:
    """Return the key of a detector's scores on a challenge, in the folds of a protocol."""
    experiment = trial.experiment
    detector = experiment.detector(name)
    config = {
        **described(trial, name),
        "folds": {
            **protocol.settings(),
            **code_key(protocol),
            "split_seed": experiment.config["evaluation"]["seed"],
        },
    }
    inputs = {
        "weights": trial.f.weights,
        "normal": normal.fingerprint,
        "abnormal": abnormal.fingerprint,
    }
    if detector.drawn or detector.perturbed_passes:
        config["perturbed_version"] = PERTURBED_VERSION
    if detector.bank_reads:
        inputs["bank"] = trial.images.train.fingerprint
    if detector.hold_out_reads:
        inputs["hold_out"] = trial.images.hold_out.fingerprint
    if detector.synthetic:
        inputs["fit"] = fit_key(trial, name).digest
    return Key("scores", SCORES_VERSION, config, inputs)
