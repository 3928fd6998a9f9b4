"""Fits detectors and scores images with them; fitted states and scores are products of the store.

A detector that sees no challenge is fitted once for a network and scores every set of images once.
One that learns from challenges is fitted in every fold of a protocol, on each challenge anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from gradbench.data.roles import stratified_subset
from gradbench.errors import Faulty
from gradbench.methods.base import Method, Samples, learned_among, outputs_among, part_of
from gradbench.methods.checked import check_state
from gradbench.methods.fold_scores import (
    PARTS,
    STATE_CHECK_IMAGES,
    CleanOutputs,
    SideOutputs,
    divide_by_fold,
    one_thread,
    score_folds,
)
from gradbench.outputs.cached_passes import VERSION as PERTURBED_VERSION
from gradbench.outputs.cached_passes import seconds_of_passes
from gradbench.outputs.extract import select_outputs
from gradbench.outputs.layers import head_tensors
from gradbench.protocols.base import Protocol, SideRows
from gradbench.run import synthetic
from gradbench.run.context import ImagesWithOutputs, NetworkContext
from gradbench.statistics.bootstrap import FoldScores
from gradbench.store import Key, Product, file_digest
from gradbench.support.code_keys import code_key, stable_config
from gradbench.support.instantiate import imported_targets
from gradbench.support.progress import step
from gradbench.support.tensors import save_tensors

FIT_VERSION = IMAGE_SCORES_VERSION = SCORES_VERSION = TRANSFER_VERSION = 1
SCORES, STATE, STATES = "scores.safetensors", "state.safetensors", "states.safetensors"
FoldArrays = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class KeptScores:
    """The scores of a detector in every fold, as the store keeps them.

    The product also holds the state of a detector that was fitted on the first fold; `parts` are
    the rows of the measured images of every fold, in the images (normal, abnormal); at the score
    `half` the detector itself says 0.5.
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
        """The name of the scores in the keys of everything that is computed from them."""
        return {"scores": file_digest(self.product.path(SCORES)), "of": self.product.folder.name}

    def folds(self) -> list[FoldScores]:
        """Read the scores."""
        arrays = load_arrays(str(self.product.path(SCORES)))
        return [
            FoldScores(
                **{part: arrays[f"{i}/{part}"] for part in PARTS},
                normal_groups=normal,
                abnormal_groups=abnormal,
                half=self.half,
            )
            for i, (normal, abnormal) in enumerate(self.groups)
        ]


def learns(detector: Method) -> bool:
    """Tell whether a detector that sees no challenge is fitted on clean images."""
    return bool(detector.bank_reads or detector.hold_out_reads or detector.synthetic)


def clean_outputs(context: NetworkContext, name: str) -> CleanOutputs:
    """Read what a detector asks for of the bank, of the hold-out, of f's last layer."""
    detector = context.experiment.detector(name)
    others = [context.experiment.detector(other) for other in context.experiment.detectors]

    def read(images: ImageSet, reads: Sequence[str], also: set[str]) -> dict[str, Tensor]:
        values = {"labels": torch.from_numpy(images.labels)} if "labels" in reads else {}
        if outputs := outputs_among(reads):
            # one pass over the images serves all detectors of the run
            every = context.read_outputs(images, outputs, outputs_among(also)).outputs
            values = select_outputs(every, outputs) | values
        return values

    alike = [other for other in others if other.bank_images == detector.bank_images]
    bank = read(
        stratified_subset(context.images.train, detector.bank_images),
        detector.bank_reads,
        {n for d in alike for n in d.bank_reads},
    )
    if any(n.startswith("head/") for n in detector.bank_reads):
        bank |= head_tensors(context.f.backbone)
    bank |= context.learned(detector.bank_reads)
    held = {n for d in others for n in d.hold_out_reads}
    return CleanOutputs(bank, read(context.images.hold_out, detector.hold_out_reads, held))


def fitted(context: NetworkContext, name: str) -> tuple[Method, dict[str, Tensor]]:
    """Return a fitted detector that sees no challenge, and its state; fitted anew if not kept.

    Raises:
        Faulty: if a detector from outside cannot be fitted, the second time without trying.
    """
    detector, seed = context.experiment.detector(name), context.experiment.settings.detector.seed
    if not learns(detector):
        nothing = Samples.normal({})
        return detector.fit({}, nothing, nothing, seed), detector.state()
    if ("fault", name) in context.known:
        raise Faulty(context.known["fault", name])
    key = fit_key(context, name)
    product = context.store.get(key)
    if product is None:
        # read beforehand, so that the seconds of the product are those of the fit
        clean = clean_outputs(context, name)
        held = Samples.normal(clean.hold_out)
        parts = synthetic.samples(context, name) if detector.synthetic else (held, held)

        def build(folder: Path, _: Path) -> dict:
            with one_thread():
                state = detector.fit(clean.bank, *parts, seed).state()
            save_tensors(state, folder / STATE)
            few = np.arange(min(STATE_CHECK_IMAGES, len(context.images.normal)))
            scores = partial(score, context, images=context.normal.select(few))
            check_state(detector, partial(context.experiment.detector, name), scores)
            return {"detector": name}

        try:
            with step(f"{name}: fit"):
                product = context.store.make(key, build)
        except Faulty as fault:
            context.known["fault", name] = str(fault)
            raise
    state = load_file(str(product.path(STATE)))
    return detector.load(state), state


def score(context: NetworkContext, detector: Method, images: ImagesWithOutputs) -> np.ndarray:
    """Return the predictions (N, ...) of a fitted detector for images, computed on one thread."""
    side = SideOutputs(images.outputs, context.passes(images.images))
    with one_thread():
        return side.score(detector, np.arange(len(images.images)))


def image_scores(context: NetworkContext, name: str, images: ImagesWithOutputs) -> np.ndarray:
    """Return the predictions (N, ...) of a detector that sees no challenge; kept or computed."""
    if not learns(context.experiment.detector(name)):
        # computing is quicker than looking the scores up
        return score(context, fitted(context, name)[0], images)
    config = {"fit": fit_key(context, name).digest}
    key = Key("image_scores", IMAGE_SCORES_VERSION, config, {"images": images.images.fingerprint})
    product = context.store.get(key)
    if product is None:
        detector, _ = fitted(context, name)

        def build(folder: Path, _: Path) -> dict:
            _save_scores({"scores": score(context, detector, images)}, folder)
            return {"detector": name, "images": len(images.images)}

        with step(f"{name}: scores of {images.images.name} {images.images.split}".rstrip()):
            product = context.store.make(key, build)
    return load_arrays(str(product.path(SCORES)))["scores"]


def fold_scores(
    context: NetworkContext,
    name: str,
    normal: ImagesWithOutputs,
    abnormal: ImagesWithOutputs,
    protocol: Protocol,
    every_state: bool = False,
) -> KeptScores:
    """Return the scores of a detector in every fold of a protocol; kept or computed.

    With `every_state`, the states of all folds are kept, to score other challenges with them.

    Raises:
        GradbenchError: if the images do not fill the folds.
        Faulty: if a detector from outside cannot be fitted, or its scores cannot be used.
    """
    store, detector = context.store, context.experiment.detector(name)
    images = normal.images, abnormal.images
    folds = context.folds(protocol, *images)
    key = scores_key(context, name, *images, protocol)
    if every_state:
        key = replace(key, config={**key.config, "states": "every fold"})

    def build(folder: Path, _: Path) -> dict:
        before = seconds_of_passes(store)
        states: list[Mapping[str, Tensor]] = []
        if detector.learns_from_challenges:
            scores, make = [], partial(context.experiment.detector, name)
            clean = clean_outputs(context, name)
            passes = [context.passes(side) for side in images]
            seed = context.experiment.settings.detector.seed
            for fold in folds:
                both = normal.outputs, abnormal.outputs
                of_fold, state = score_folds(make, *both, [fold], seed, clean, passes)
                scores += of_fold
                if every_state or not states:  # others are never asked for, and may be large
                    states.append(state)
        else:  # its state is a product of its own, one for all challenges
            sides = (image_scores(context, name, side) for side in (normal, abnormal))
            scores = divide_by_fold(*sides, folds)
        _save_scores(
            {f"{i}/{part}": getattr(s, part) for i, s in enumerate(scores) for part in PARTS},
            folder,
        )
        save_tensors(states[0] if states else {}, folder / STATE)
        if every_state:
            numbered = {f"{i}/{n}": t for i, state in enumerate(states) for n, t in state.items()}
            save_tensors(numbered, folder / STATES)
        return _about(name, images, seconds_of_passes(store) - before)

    with step(f"{name}: fit and scores on {abnormal.images.name}"):
        product = store.make(key, build)
    return KeptScores(product, images, [fold.measure for fold in folds], detector.half)


def kept_state(product: Product) -> dict[str, Tensor]:
    """Return the kept state of a detector that was fitted on the first fold."""
    return load_file(str(product.path(STATE)))


def transferred_scores(
    context: NetworkContext,
    name: str,
    title: str,
    home: Product,
    home_groups: tuple[np.ndarray, np.ndarray],
    normal: ImagesWithOutputs,
    abnormal: ImagesWithOutputs,
) -> KeptScores:
    """Return the scores on a challenge of a detector that was fitted on another; kept or computed.

    The product `home` holds its states of every fold and its scores on the challenge that it was
    fitted on, whose images have the groups `home_groups`; `title` is the name in rows.
    """
    protocol, store = context.experiment.protocol, context.store
    images = normal.images, abnormal.images
    groups = tuple(side.groups for side in images)
    parts = protocol.across(home_groups, groups, context.experiment.evaluation.seed)
    config = {"fits": home.folder.name, "folds": _folds_config(context, protocol)}
    inputs = {"normal": normal.images.fingerprint, "abnormal": abnormal.images.fingerprint}

    def build(folder: Path, _: Path) -> dict:
        states = load_file(str(home.path(STATES)))
        # thresholds are chosen on images of the challenge that it was fitted on
        arrays = load_arrays(str(home.path(SCORES)))
        sides = [SideOutputs(s.outputs, context.passes(s.images)) for s in (normal, abnormal)]
        before = seconds_of_passes(store)
        with one_thread():
            for i, part in enumerate(parts):
                detector = context.experiment.detector(name).load(part_of(states, f"{i}/"))
                arrays[f"{i}/normal"] = sides[0].score(detector, part.normal)
                arrays[f"{i}/abnormal"] = sides[1].score(detector, part.abnormal)
        _save_scores(arrays, folder)
        return _about(title, images, seconds_of_passes(store) - before)

    product = store.make(Key("transfer", TRANSFER_VERSION, config, inputs), build)
    return KeptScores(product, images, parts, context.experiment.detector(name).half)


def _save_scores(arrays: Mapping[str, np.ndarray], folder: Path) -> None:
    arrays = {n: np.ascontiguousarray(a, dtype=np.float64) for n, a in arrays.items()}
    save_arrays(arrays, str(folder / SCORES))


def _about(name: str, images: Iterable[ImageSet], seconds: float) -> dict[str, Any]:
    # costs take the passes off the seconds of the product: another detector may have made them
    passes = {"seconds_of_passes": round(seconds, 3)}
    return {"detector": name, "images": sum(map(len, images)), **passes}


def fit_key(context: NetworkContext, name: str) -> Key:
    """Return the key of a fit: settings of the detector, f, and the images that it is fitted on."""

    def key() -> Key:
        inputs = _fit_inputs(context, name)
        if context.experiment.detector(name).synthetic:
            inputs["synthetic"] = synthetic.make(context, name).fingerprint
        return Key("fit", FIT_VERSION, _detector_config(context, name), inputs)

    return context.once(("fit", name), key)  # every set of images asks for it


def scores_key(
    context: NetworkContext, name: str, normal: ImageSet, abnormal: ImageSet, protocol: Protocol
) -> Key:
    """Return the key of a detector's scores on a challenge, in the folds of a protocol."""
    detector = context.experiment.detector(name)
    config = _detector_config(context, name) | {"folds": _folds_config(context, protocol)}
    if detector.drawn or detector.perturbed_passes:
        config["perturbed_version"] = PERTURBED_VERSION
    inputs = _fit_inputs(context, name)
    inputs |= {"normal": normal.fingerprint, "abnormal": abnormal.fingerprint}
    if detector.synthetic:
        inputs["fit"] = fit_key(context, name).digest
    return Key("scores", SCORES_VERSION, config, inputs)


def _folds_config(context: NetworkContext, protocol: Protocol) -> dict[str, Any]:
    seed = context.experiment.evaluation.seed
    return {**protocol.settings(), **code_key(protocol), "split_seed": seed}


def _detector_config(context: NetworkContext, name: str) -> dict[str, Any]:
    detector, content = context.experiment.detector(name), context.experiment.detectors[name]
    every = {*detector.reads, *detector.bank_reads, *detector.hold_out_reads}
    reads = {*outputs_among(every), *learned_among(every).values()}
    return {
        "detector": stable_config({k: v for k, v in content.items() if k != "description"}),
        "detector_version": detector.version,
        "reads": {output.name: output.identity for output in context.outputs_of(reads)},
        "seed": context.experiment.settings.detector.seed,
        **code_key(*imported_targets(content.get("_target_")), detector),
    }


def _fit_inputs(context: NetworkContext, name: str) -> dict[str, str]:
    detector = context.experiment.detector(name)
    inputs = {"weights": context.f.weights}
    if detector.bank_reads:
        inputs["bank"] = context.images.train.fingerprint
    if detector.hold_out_reads:
        inputs["hold_out"] = context.images.hold_out.fingerprint
    return inputs
