"""Detectors that see no challenge: fitted once for a network, and their scores of any images."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file
from torch import Tensor

from gradbench.data.imageset import ImageSet
from gradbench.errors import Faulty
from gradbench.methods.base import BANK_EXTRAS, Detector, Samples
from gradbench.methods.checked import check_state
from gradbench.methods.fold_scores import STATE_CHECK_IMAGES, CleanOutputs, one_thread
from gradbench.outputs.extract import select_outputs
from gradbench.outputs.layers import head_tensors
from gradbench.run import synthetic
from gradbench.run.trial import Seen, Trial
from gradbench.store import Key
from gradbench.support.code_keys import code_key, stable_config
from gradbench.support.instantiate import imported_targets
from gradbench.support.progress import step
from gradbench.support.tensors import save_tensors

FIT_VERSION = 1
IMAGE_SCORES_VERSION = 1


def clean(trial: Trial, name: str) -> CleanOutputs:
    """Return what a detector reads of training images, of f's last layer and of the hold-out."""
    detector = trial.experiment.detector(name)
    every = [trial.experiment.detector(other) for other in trial.experiment.detectors]
    banks = {read for one in every for read in one.bank_reads}
    held = {read for one in every for read in one.hold_out_reads}
    bank = _read(trial, trial.images.train, detector.bank_reads, banks)
    if any(read.startswith("head/") for read in detector.bank_reads):
        bank |= head_tensors(trial.f.backbone)
    return CleanOutputs(bank, _read(trial, trial.images.hold_out, detector.hold_out_reads, held))


def fitted(trial: Trial, name: str) -> tuple[Detector, dict[str, Tensor]]:
    """Return a detector that sees no challenge, fitted, and its state; fitted anew if not kept."""
    detector = trial.experiment.detector(name)
    if not learns(detector):
        nothing = Samples.normal({})
        return detector.fit({}, nothing, nothing, _seed(trial)), detector.state()
    if name in trial.unfit:
        raise Faulty(trial.unfit[name])

    key = fit_key(trial, name)
    product = trial.store.get(key)
    if product is None:
        given = clean(trial, name)  # read beforehand, so that the product's time is that of the fit
        aside = Samples.normal(given.hold_out)
        parts = synthetic.samples(trial, name) if detector.synthetic else (aside, aside)

        def build(folder: Path, _: Path) -> dict:
            with one_thread():
                state = detector.fit(given.bank, *parts, _seed(trial)).state()
            save_tensors(state, folder / "state.safetensors")
            make, scores = partial(trial.experiment.detector, name), partial(_of_some, trial)
            check_state(detector, make, scores)
            return {"detector": name}

        try:
            with step(f"{name}: fit"):
                product = trial.store.make(key, build)
        except Faulty as fault:
            trial.unfit[name] = str(fault)
            raise
    state = load_file(str(product.path("state.safetensors")))
    return detector.load(state), state


def image_scores(trial: Trial, name: str, seen: Seen) -> np.ndarray:
    """Return the scores (N,) of images by a detector that sees no challenge; kept or computed."""
    if not learns(trial.experiment.detector(name)):
        return score(trial, fitted(trial, name)[0], seen)  # quicker than looking it up

    config = {"fit": fit_key(trial, name).digest}
    inputs = {"images": seen.images.fingerprint}
    key = Key("image_scores", IMAGE_SCORES_VERSION, config, inputs)
    product = trial.store.get(key)
    if product is None:
        detector, _ = fitted(trial, name)

        def build(folder: Path, _: Path) -> dict:
            scores = np.ascontiguousarray(score(trial, detector, seen))
            save_arrays({"scores": scores}, str(folder / "scores.safetensors"))
            return {"detector": name, "images": len(scores)}

        with step(f"{name}: scores of {seen.images.name} {seen.images.split}".rstrip()):
            product = trial.store.make(key, build)
    return load_arrays(str(product.path("scores.safetensors")))["scores"]


def score(trial: Trial, detector: Detector, seen: Seen) -> np.ndarray:
    """Return the scores (N,) of images by a fitted detector, computed on one thread."""
    rows, again = np.arange(len(seen.images)), trial.again(seen.images)
    moved = {name: again(what, rows) for name, what in detector.perturbed_passes.items()}
    with one_thread():
        own = select_outputs(seen.outputs, detector.reads)
        return detector.score({**own, **moved}).double().numpy()


def _of_some(trial: Trial, detector: Detector) -> np.ndarray:
    """Return the scores of the first clean images."""
    few = np.arange(min(STATE_CHECK_IMAGES, len(trial.images.normal)))
    return score(trial, detector, trial.normal.select(few))


def described(trial: Trial, name: str) -> dict[str, Any]:
    """Return what keys of products tell of a detector: its settings, versions, reads and seed."""
    experiment = trial.experiment
    detector = experiment.detector(name)
    reads = {*detector.reads, *detector.bank_reads, *detector.hold_out_reads}.difference(
        BANK_EXTRAS
    )
    content = experiment.detectors[name]
    return {
        "detector": stable_config({k: v for k, v in content.items() if k != "description"}),
        "detector_version": detector.version,
        "reads": {output.name: output.identity for output in trial.outputs_of(reads)},
        "seed": _seed(trial),
        **code_key(*imported_targets(content.get("_target_")), detector),
    }


def fit_key(trial: Trial, name: str) -> Key:
    """Return the key of a fit: settings of the detector, f, and the images that it is fitted on."""
    detector, config = trial.experiment.detector(name), described(trial, name)
    inputs = {"weights": trial.f.weights}
    if detector.bank_reads:
        inputs["bank"] = trial.images.train.fingerprint
    if detector.hold_out_reads:
        inputs["hold_out"] = trial.images.hold_out.fingerprint
    if detector.synthetic:
        inputs["synthetic"] = synthetic.make(trial, name).fingerprint
    return Key("fit", FIT_VERSION, config, inputs)


def learns(detector: Detector) -> bool:
    """Tell whether a detector that sees no challenge is fitted on clean images."""
    return bool(detector.bank_reads or detector.hold_out_reads or detector.synthetic)


def _read(trial: Trial, images: ImageSet, reads: Iterable[str], also: Iterable[str]):
    """Return outputs of images by name; one pass reads what all detectors want of them."""
    outputs, others = ([n for n in names if n not in BANK_EXTRAS] for names in (reads, also))
    found = trial.look(images, outputs, others).outputs if outputs else {}
    found = select_outputs(found, outputs)
    return found | ({"labels": torch.from_numpy(images.labels)} if "labels" in reads else {})


def _seed(trial: Trial) -> int:
    return trial.experiment.config["detector"]["seed"]
