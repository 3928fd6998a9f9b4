"""One challenge at one level: its images (step 2), and each detector's verdict (steps 4 and 5)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import Tensor

from gradbench.backbones.obtain import Network
from gradbench.challenges.base import Derived
from gradbench.challenges.produce import Attack, Source, produce
from gradbench.data.imageset import ImageSet
from gradbench.detectors.scoring import PARTS, Scores, score_folds
from gradbench.evaluation.intervals import Measured, measure
from gradbench.evaluation.resampling import FoldScores
from gradbench.experiment import Cell, Experiment
from gradbench.extraction.readers import version_of
from gradbench.store import Key, Store, file_digest

SCORES_VERSION = 1
MEASURES_VERSION = 1


@dataclass(frozen=True)
class Images:
    """Images together with the outputs of f for them.

    Attributes:
        images: the images.
        outputs: by name, each (N, ...).
    """

    images: ImageSet
    outputs: dict[str, Tensor]


@dataclass(frozen=True)
class Judged:
    """What a detector gave on one challenge.

    Attributes:
        protocol: name in rows: the protocol's, or `random` for a random split.
        scores: of every fold.
        state: the detector fitted on the first fold.
        measured: metrics with intervals, fractions in [0, 1].
    """

    protocol: str
    scores: list[Scores]
    state: dict[str, Tensor]
    measured: list[Measured]


def source(experiment: Experiment, cell: Cell, f: Network, strength: float | None = None) -> Source:
    """Return what a derived challenge is made with; `strength` replaces that of the level."""
    challenge = cell.challenge
    settings = experiment.config["challenge"]
    return Source(
        challenge,
        cell.title,
        challenge.strength(cell.level) if strength is None else strength,
        settings["seed"],
        settings["quantise"],
        f.backbone if challenge.uses_network else None,
        f.weights if challenge.uses_network else "",
    )


def challenge(
    experiment: Experiment, cell: Cell, clean: ImageSet, f: Network, store: Store
) -> tuple[ImageSet, Attack | None]:
    """Return the images of a challenge, and for attacks what they did.

    Raises:
        MissingData: if images of another dataset are not at hand.
    """
    if isinstance(cell.challenge, Derived):
        return produce(source(experiment, cell, f), clean, store)
    dataset = experiment.other_dataset(cell.challenge)
    images = cell.challenge.images(dataset, clean.shape, experiment.data)
    return replace(images, name=cell.name), None


def judge(
    experiment: Experiment,
    name: str,
    normal: Images,
    abnormal: Images,
    f: Network,
    store: Store,
    protocol: Any = None,
) -> Judged:
    """Fit a detector on every fold, score it and measure it; kept products are not made again.

    Args:
        experiment: of the run.
        name: of the detector.
        normal: the normal side.
        abnormal: the abnormal side.
        f: the network.
        store: where scores and measures lie.
        protocol: other than the experiment's.
    """
    protocol = protocol or experiment.protocol
    settings = experiment.config["evaluation"]
    folds = protocol.folds(normal.images.groups, abnormal.images.groups, settings["seed"])
    key = _scores_key(experiment, name, normal.images, abnormal.images, f, protocol)

    def fit(folder: Path, _: Path) -> dict:
        scores, state = score_folds(
            lambda: experiment.detector(name),
            normal.outputs,
            abnormal.outputs,
            folds,
            experiment.config["detector"]["seed"],
        )
        arrays = {f"{i}/{part}": getattr(s, part) for i, s in enumerate(scores) for part in PARTS}
        _save_arrays(folder / "scores.safetensors", arrays)
        save_file({n: t.contiguous() for n, t in state.items()}, str(folder / "state.safetensors"))
        return {"detector": name, "images": len(normal.images) + len(abnormal.images)}

    product = store.make(key, fit)
    kept = load_file(str(product.path("scores.safetensors")))
    scores = [Scores(*(kept[f"{i}/{part}"].numpy() for part in PARTS)) for i in range(len(folds))]
    half = experiment.detector(name).half

    def evaluate(folder: Path, _: Path) -> dict:
        measured = measure(
            [
                FoldScores(
                    normal=s.normal,
                    normal_groups=normal.images.groups[fold.measure.normal],
                    abnormal=s.abnormal,
                    abnormal_groups=abnormal.images.groups[fold.measure.abnormal],
                    choose_normal=s.choose_normal,
                    choose_abnormal=s.choose_abnormal,
                    half=half,
                )
                for s, fold in zip(scores, folds)
            ],
            settings["replicates"],
            settings["confidence"],
            settings["seed"],
        )
        text = json.dumps([asdict(m) for m in measured], indent=1)
        (folder / "measures.json").write_text(text)
        return {}

    config = {k: settings[k] for k in ("replicates", "confidence", "seed")} | {"half": half}
    inputs = {
        "scores": file_digest(product.path("scores.safetensors")),
        "groups": [normal.images.fingerprint, abnormal.images.fingerprint],
        "folds": _protocol_config(experiment, protocol),
    }
    measures = store.make(Key("measures", MEASURES_VERSION, config, inputs), evaluate)
    measured = [
        Measured(**(m | {"per_fold": tuple(m["per_fold"])}))
        for m in json.loads(measures.path("measures.json").read_text())
    ]
    state = load_file(str(product.path("state.safetensors")))
    return Judged(protocol_name(protocol), scores, state, measured)


def protocol_name(protocol: Any) -> str:
    """Return a protocol's name in rows; `random` says that twins were not kept together."""
    return "random" if getattr(protocol, "split", "") == "random" else protocol.name


def _scores_key(experiment, name, normal: ImageSet, abnormal: ImageSet, f, protocol) -> Key:
    detector = experiment.detector(name)
    config = {
        "detector": {k: v for k, v in experiment.detectors[name].items() if k != "description"},
        "detector_version": detector.version,
        "reads": {read: version_of(read) for read in detector.reads},
        "seed": experiment.config["detector"]["seed"],
        "folds": _protocol_config(experiment, protocol),
    }
    inputs = {
        "weights": f.weights,
        "normal": normal.fingerprint,
        "abnormal": abnormal.fingerprint,
    }
    return Key("scores", SCORES_VERSION, config, inputs)


def _protocol_config(experiment: Experiment, protocol: Any) -> dict:
    given = {k: v for k, v in experiment.config["protocol"].items() if k != "description"}
    given["split"] = getattr(protocol, "split", "")
    return given | {"split_seed": experiment.config["evaluation"]["seed"]}


def _save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    save_arrays(
        {n: np.ascontiguousarray(a, dtype=np.float64) for n, a in arrays.items()}, str(path)
    )
