"""Fits detectors and scores images with them; fitted states and scores are products of the store.

A detector that sees no challenge is fitted once for a network and scores every set of images once.
One that learns from challenges is fitted in every fold of a protocol, on each challenge anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
from gradbench.methods.fold_scores import (
    PARTS,
    STATE_CHECK_IMAGES,
    CleanOutputs,
    Scores,
    SideOutputs,
    divide_by_fold,
    one_thread,
    score_folds,
)
from gradbench.outputs.cached_passes import VERSION as PERTURBED_VERSION
from gradbench.outputs.cached_passes import seconds_of_passes
from gradbench.outputs.extract import select_outputs
from gradbench.outputs.layers import head_tensors
from gradbench.protocols.base import Fold, Protocol, SideRows
from gradbench.run import synthetic
from gradbench.run.context import ImagesWithOutputs, NetworkContext
from gradbench.statistics.bootstrap import FoldScores
from gradbench.store import Key, Product, file_digest
from gradbench.support.code_keys import code_key, stable_config
from gradbench.support.instantiate import imported_targets
from gradbench.support.progress import step
from gradbench.support.tensors import save_tensors

FIT_VERSION = IMAGE_SCORES_VERSION = SCORES_VERSION = FITS_VERSION = TRANSFER_VERSION = 1
SCORES = "scores.safetensors"
FoldArrays = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class KeptScores:
    """The scores of a detector in every fold, as the store keeps them.

    Attributes:
        product: holds them, and the state of a detector that was fitted on the first fold.
        images: of both sides, (normal, abnormal).
        parts: the rows of the measured images of every fold.
        half: score at which the detector itself says 0.5.
    """

    product: Product
    images: tuple[ImageSet, ImageSet]
    parts: Sequence[SideRows]
    half: float | None

    def by_fold(self, normal: np.ndarray, abnormal: np.ndarray) -> FoldArrays:
        """Divide something that is known of every image, (N, ...) and (M, ...), into the folds."""
        return [(normal[part.normal], abnormal[part.abnormal]) for part in self.parts]

    @property
    def groups(self) -> FoldArrays:
        """The groups of the measured images of every fold, (normal, abnormal)."""
        return self.by_fold(*(images.groups for images in self.images))

    @property
    def digests(self) -> dict[str, str]:
        """Return the name of the scores in the keys of everything that is computed from them."""
        return {"scores": file_digest(self.product.path(SCORES)), "of": self.product.folder.name}

    def folds(self) -> list[FoldScores]:
        """Read the scores."""
        kept = load_arrays(str(self.product.path(SCORES)))
        return [
            FoldScores(
                kept[f"{i}/normal"],
                normal,
                kept[f"{i}/abnormal"],
                abnormal,
                kept[f"{i}/choose_normal"],
                kept[f"{i}/choose_abnormal"],
                self.half,
            )
            for i, (normal, abnormal) in enumerate(self.groups)
        ]


def learns(detector: Detector) -> bool:
    """Tell whether a detector that sees no challenge is fitted on clean images."""
    return bool(detector.bank_reads or detector.hold_out_reads or detector.synthetic)


def clean_outputs(context: NetworkContext, name: str) -> CleanOutputs:
    """Read the outputs that a detector asks for of the bank, the hold-out and f's last layer."""
    detector = context.experiment.detector(name)
    every = [context.experiment.detector(other) for other in context.experiment.detectors]
    banks = {read for one in every for read in one.bank_reads}
    held = {read for one in every for read in one.hold_out_reads}
    bank = _read(context, context.images.train, detector.bank_reads, banks)
    if any(read.startswith("head/") for read in detector.bank_reads):
        bank |= head_tensors(context.f.backbone)
    return CleanOutputs(
        bank, _read(context, context.images.hold_out, detector.hold_out_reads, held)
    )


def _read(context: NetworkContext, images: ImageSet, reads: Iterable[str], also: Iterable[str]):
    """Return outputs of images by name; one pass reads those that all detectors ask for."""
    outputs, others = ([n for n in names if n not in BANK_EXTRAS] for names in (reads, also))
    found = context.read_outputs(images, outputs, others).outputs if outputs else {}
    found = select_outputs(found, outputs)
    return found | ({"labels": torch.from_numpy(images.labels)} if "labels" in reads else {})


def fitted(context: NetworkContext, name: str) -> tuple[Detector, dict[str, Tensor]]:
    """Return a fitted detector that sees no challenge, and its state; fitted anew if not kept.

    Raises:
        Faulty: if a detector from outside cannot be fitted, the second time without trying.
    """
    detector, seed = context.experiment.detector(name), _seed(context)
    if not learns(detector):
        nothing = Samples.normal({})
        return detector.fit({}, nothing, nothing, seed), detector.state()
    if name in context.failed_fits:
        raise Faulty(context.failed_fits[name])
    key = fit_key(context, name)
    product = context.store.get(key)
    if product is None:
        # read beforehand, so that the seconds of the product are those of the fit
        given = clean_outputs(context, name)
        aside = Samples.normal(given.hold_out)
        parts = synthetic.samples(context, name) if detector.synthetic else (aside, aside)

        def build(folder: Path, _: Path) -> dict:
            with one_thread():
                state = detector.fit(given.bank, *parts, seed).state()
            save_tensors(state, folder / "state.safetensors")
            few = np.arange(min(STATE_CHECK_IMAGES, len(context.images.normal)))
            scores = partial(score, context, images=context.normal.select(few))
            check_state(detector, partial(context.experiment.detector, name), scores)
            return {"detector": name}

        try:
            with step(f"{name}: fit"):
                product = context.store.make(key, build)
        except Faulty as fault:
            context.failed_fits[name] = str(fault)
            raise
    state = load_file(str(product.path("state.safetensors")))
    return detector.load(state), state


def score(context: NetworkContext, detector: Detector, images: ImagesWithOutputs) -> np.ndarray:
    """Return the scores (N,) of images by a fitted detector, computed on one thread."""
    rows, passes = np.arange(len(images.images)), context.passes(images.images)
    moved = {name: passes(what, rows) for name, what in detector.perturbed_passes.items()}
    with one_thread():
        own = select_outputs(images.outputs, detector.reads)
        return detector.score({**own, **moved}).double().numpy()


def image_scores(context: NetworkContext, name: str, images: ImagesWithOutputs) -> np.ndarray:
    """Return the scores (N,) of images by a detector that sees no challenge; kept or computed."""
    if not learns(context.experiment.detector(name)):
        # computing is quicker than looking the scores up
        return score(context, fitted(context, name)[0], images)
    config = {"fit": fit_key(context, name).digest}
    key = Key("image_scores", IMAGE_SCORES_VERSION, config, {"images": images.images.fingerprint})
    product = context.store.get(key)
    if product is None:
        detector, _ = fitted(context, name)

        def build(folder: Path, _: Path) -> dict:
            scores = score(context, detector, images)
            _save_scores({"scores": scores}, folder)
            return {"detector": name, "images": len(scores)}

        with step(f"{name}: scores of {images.images.name} {images.images.split}".rstrip()):
            product = context.store.make(key, build)
    return load_arrays(str(product.path(SCORES)))["scores"]


def fold_scores(
    context: NetworkContext,
    name: str,
    normal: ImagesWithOutputs,
    abnormal: ImagesWithOutputs,
    protocol: Protocol,
) -> KeptScores:
    """Return the scores of a detector in every fold of a protocol; kept or computed.

    Raises:
        GradbenchError: if the images do not fill the folds.
        Faulty: if a detector from outside cannot be fitted, or its scores cannot be used.
    """
    experiment, store = context.experiment, context.store
    folds = protocol.folds(normal.images.groups, abnormal.images.groups, _split_seed(context))
    key = scores_key(context, name, normal.images, abnormal.images, protocol)
    supervised = experiment.detector(name).learns_from_challenges

    def build(folder: Path, _: Path) -> dict:
        before = seconds_of_passes(store)
        if supervised:
            scores, state = _fit_and_score(context, name, normal, abnormal, folds)
        else:  # its state is a product of its own, one for all challenges
            sides = (image_scores(context, name, side) for side in (normal, abnormal))
            scores, state = divide_by_fold(*sides, folds), {}
        _save_scores(_by_fold(scores, PARTS), folder)
        save_tensors(state, folder / "state.safetensors")
        return _about(name, normal, abnormal, seconds_of_passes(store) - before)

    with step(f"{name}: fit and scores on {abnormal.images.name}"):
        product = store.make(key, build)
    parts = [fold.measure for fold in folds]
    both = normal.images, abnormal.images
    return KeptScores(product, both, parts, experiment.detector(name).half)


def kept_state(product: Product) -> dict[str, Tensor]:
    """Return the kept state of a detector that was fitted on the first fold."""
    return load_file(str(product.path("state.safetensors")))


def fold_fits(
    context: NetworkContext,
    name: str,
    normal: ImagesWithOutputs,
    abnormal: ImagesWithOutputs,
    protocol: Protocol,
) -> tuple[Key, Product]:
    """Return a detector fitted in every fold of a challenge, to be measured on other challenges.

    The product holds the state of each fold and the scores of its *choose* part, which thresholds
    are chosen on.
    """
    like = scores_key(context, name, normal.images, abnormal.images, protocol)
    key = Key("fits", FITS_VERSION, like.config, like.inputs)

    def build(folder: Path, _: Path) -> dict:
        states, chosen = {}, []
        before = seconds_of_passes(context.store)
        groups = normal.images.groups, abnormal.images.groups
        for number, fold in enumerate(protocol.folds(*groups, _split_seed(context))):
            scores, state = _fit_and_score(context, name, normal, abnormal, [fold])
            states |= {f"{number}/{tensor}": values for tensor, values in state.items()}
            chosen += scores
        save_tensors(states, folder / "states.safetensors")
        _save_scores(_by_fold(chosen, PARTS[2:]), folder, "chosen.safetensors")
        return _about(name, normal, abnormal, seconds_of_passes(context.store) - before)

    return key, context.store.make(key, build)


def transferred_scores(
    context: NetworkContext,
    name: str,
    title: str,
    fits: tuple[Key, Product],
    fitted_groups: tuple[np.ndarray, np.ndarray],
    normal: ImagesWithOutputs,
    abnormal: ImagesWithOutputs,
) -> KeptScores:
    """Return the scores on a challenge of a detector that was fitted on another; kept or computed.

    Args:
        context: with a protocol that says what is measured across challenges.
        name: of the detector.
        title: of the detector in rows.
        fits: see `fold_fits`.
        fitted_groups: of the normal and abnormal images that it was fitted on.
        normal: the normal side of the measured challenge.
        abnormal: the abnormal side.
    """
    protocol, seed = context.experiment.protocol, _split_seed(context)
    rows = protocol.across(fitted_groups, (normal.images.groups, abnormal.images.groups), seed)
    folds = {**protocol.settings(), **code_key(protocol), "split_seed": seed}
    key = Key(
        "transfer",
        TRANSFER_VERSION,
        {"fits": fits[0].digest, "folds": folds},
        {"normal": normal.images.fingerprint, "abnormal": abnormal.images.fingerprint},
    )

    def build(folder: Path, _: Path) -> dict:
        states = load_file(str(fits[1].path("states.safetensors")))
        arrays = load_arrays(str(fits[1].path("chosen.safetensors")))
        sides = [SideOutputs(s.outputs, context.passes(s.images)) for s in (normal, abnormal)]
        before = seconds_of_passes(context.store)
        with one_thread():
            for number, part in enumerate(rows):
                start = f"{number}/"
                state = {n[len(start) :]: t for n, t in states.items() if n.startswith(start)}
                detector = context.experiment.detector(name).load(state)
                for place, side, own in zip(PARTS, sides, (part.normal, part.abnormal)):
                    arrays[f"{number}/{place}"] = side.score(detector, own)
        _save_scores(arrays, folder)
        return _about(title, normal, abnormal, seconds_of_passes(context.store) - before)

    product = context.store.make(key, build)
    half = context.experiment.detector(name).half
    return KeptScores(product, (normal.images, abnormal.images), rows, half)


def _fit_and_score(
    context: NetworkContext,
    name: str,
    normal: ImagesWithOutputs,
    abnormal: ImagesWithOutputs,
    folds: Sequence[Fold],
) -> tuple[list[Scores], dict[str, Tensor]]:
    return score_folds(
        partial(context.experiment.detector, name),
        normal.outputs,
        abnormal.outputs,
        folds,
        _seed(context),
        clean_outputs(context, name),
        [context.passes(side.images) for side in (normal, abnormal)],
    )


def _by_fold(scores: Sequence[Scores], parts: Sequence[str]) -> dict[str, np.ndarray]:
    return {f"{i}/{part}": getattr(s, part) for i, s in enumerate(scores) for part in parts}


def _save_scores(arrays: Mapping[str, np.ndarray], folder: Path, name: str = SCORES) -> None:
    arrays = {n: np.ascontiguousarray(a, dtype=np.float64) for n, a in arrays.items()}
    save_arrays(arrays, str(folder / name))


def _about(name: str, normal: ImagesWithOutputs, abnormal: ImagesWithOutputs, seconds: float):
    images = len(normal.images) + len(abnormal.images)
    return {"detector": name, "images": images, "seconds_of_passes": round(seconds, 3)}


def detector_config(context: NetworkContext, name: str) -> dict[str, Any]:
    """Return a detector's part of keys: settings, source, versions, reads and seed."""
    detector, content = context.experiment.detector(name), context.experiment.detectors[name]
    reads = {*detector.reads, *detector.bank_reads, *detector.hold_out_reads} - {*BANK_EXTRAS}
    return {
        "detector": stable_config({k: v for k, v in content.items() if k != "description"}),
        "detector_version": detector.version,
        "reads": {output.name: output.identity for output in context.outputs_of(reads)},
        "seed": _seed(context),
        **code_key(*imported_targets(content.get("_target_")), detector),
    }


def _fit_inputs(context: NetworkContext, detector: Detector) -> dict[str, str]:
    inputs = {"weights": context.f.weights}
    if detector.bank_reads:
        inputs["bank"] = context.images.train.fingerprint
    if detector.hold_out_reads:
        inputs["hold_out"] = context.images.hold_out.fingerprint
    return inputs


def fit_key(context: NetworkContext, name: str) -> Key:
    """Return the key of a fit: settings of the detector, f, and the images that it is fitted on."""
    detector = context.experiment.detector(name)
    inputs = _fit_inputs(context, detector)
    if detector.synthetic:
        inputs["synthetic"] = synthetic.make(context, name).fingerprint
    return Key("fit", FIT_VERSION, detector_config(context, name), inputs)


def scores_key(
    context: NetworkContext, name: str, normal: ImageSet, abnormal: ImageSet, protocol: Protocol
) -> Key:
    """Return the key of a detector's scores on a challenge, in the folds of a protocol."""
    detector = context.experiment.detector(name)
    folds = {
        **protocol.settings(),
        **code_key(protocol),
        "split_seed": _split_seed(context),
    }
    config = {**detector_config(context, name), "folds": folds}
    if detector.drawn or detector.perturbed_passes:
        config["perturbed_version"] = PERTURBED_VERSION
    inputs = _fit_inputs(context, detector)
    inputs |= {"normal": normal.fingerprint, "abnormal": abnormal.fingerprint}
    if detector.synthetic:
        inputs["fit"] = fit_key(context, name).digest
    return Key("scores", SCORES_VERSION, config, inputs)


def _seed(context: NetworkContext) -> int:
    return context.experiment.config["detector"]["seed"]


def _split_seed(context: NetworkContext) -> int:
    return context.experiment.config["evaluation"]["seed"]
