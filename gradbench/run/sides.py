"""The two sides of a measurement: which images of an attack are kept, and what they stand against.

keep=successful: only images that f classified correctly before and takes for another class after
the attack, and on the normal side their clean sources alone. noisy_negatives=true: noisy copies
stand on the normal side too, two normal images for each abnormal one; with keep=successful f must
also be right on the noisy copy. Copies have the source of their originals, so all three stay on
one side of a split.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gradbench.backbones.backbone import Backbone
from gradbench.challenges.base import Derived
from gradbench.challenges.controls import NoisyCopy
from gradbench.challenges.produce import AttackOutcome, ChallengeSetup, produce
from gradbench.data.dataset import MissingData
from gradbench.data.imageset import ImageSet
from gradbench.errors import GradbenchError
from gradbench.run.experiment import Cell, Experiment
from gradbench.run.trial import Made, Seen, Trial


def sides(trial: Trial, cell: Cell, made: Made) -> tuple[Seen, Seen]:
    """Return the normal and the abnormal side of a challenge, with their outputs.

    Raises:
        MissingData: if there are too few images to be measured, or too few of an attack are kept.
    """
    keep, noisy = protocol(trial.experiment, cell)
    if made.attack is None or (keep == "all" and not noisy):
        if not isinstance(cell.challenge, Derived):
            check_enough(trial.experiment, trial.images.normal.groups, made.images.groups)
        return trial.normal, trial.look(made.images)
    kept = made.attack.success if keep == "successful" else np.ones(len(made.images), bool)
    copies = _copies(trial, cell) if noisy else None
    if copies is not None and keep == "successful":
        right = copies.outputs["logits"].argmax(1).numpy() == copies.images.labels
        kept = kept & right
    rows = np.flatnonzero(kept)
    note = _note(made.attack, keep, len(rows), cell.challenge.noise if noisy else None)
    groups = trial.images.normal.groups[rows]
    check_enough(trial.experiment, groups, groups, *note[:1])
    normal, abnormal = trial.normal.select(rows), trial.look(made.images).select(rows)
    if copies is not None:
        normal = normal.join(copies.select(rows))
    parts = [part for part in (abnormal.images.note, *note) if part]
    return normal, replace(abnormal, images=replace(abnormal.images, note="; ".join(parts)))


def protocol(experiment: Experiment, cell: Cell) -> tuple[str, bool]:
    """Return which images are kept, and whether noisy ones count as normal.

    What the run says of all attacks goes before what an attack says itself.
    """
    settings, challenge = experiment.config["challenge"], cell.challenge
    keep, noisy = settings["keep"], settings["noisy_negatives"]
    return (
        getattr(challenge, "keep", "all") if keep is None else keep,
        getattr(challenge, "noisy_negatives", False) if noisy is None else noisy,
    )


def noisy_copies(
    experiment: Experiment, cell: Cell, clean: ImageSet, f: Backbone
) -> ChallengeSetup:
    """Return what the noisy copies of clean images are made with, beside an attack."""
    settings = experiment.config["challenge"]
    copy = NoisyCopy(cell.challenge.noise, f.std.flatten().tolist())
    name = f"{clean.name} with noise"
    return ChallengeSetup(
        copy, name, copy.strength_at(None), settings["seed"], settings["quantise"]
    )


def _copies(trial: Trial, cell: Cell) -> Seen:
    """Return the noisy copies of the normal images, with the logits of f."""
    clean = trial.images.normal
    source = noisy_copies(trial.experiment, cell, clean, trial.f.backbone)
    images, _ = produce(source, clean, trial.store)
    return trial.look(images, {*trial.experiment.reads, "logits"})


def _note(attack: AttackOutcome, keep: str, kept: int, noise: float | None) -> list[str]:
    """Return remarks for the rows: how many images are kept of how many, and against what."""
    remarks = []
    if keep == "successful":
        also = " and is right on their noisy copies" if noise is not None else ""
        remarks.append(
            f"{kept} images that f errs on only after the attack{also} are kept, of "
            f"{int(attack.correct.sum())} classified correctly and {len(attack.correct)} attempted"
        )
    if noise is not None:
        remarks.append(
            f"normal images are clean ones and their noisy copies (deviation {noise:g} in "
            "normalised space)"
        )
    return remarks


def check_enough(
    experiment: Experiment, normal: np.ndarray, abnormal: np.ndarray, note: str = ""
) -> None:
    """Refuse a measurement for which there are too few images.

    Args:
        experiment: with the protocol.
        normal: (N,) groups of the normal images.
        abnormal: (M,) groups of the abnormal images.
        note: why there are so few; otherwise the protocol says what it needs.

    Raises:
        MissingData: with the counts.
    """
    try:
        experiment.protocol.folds(normal, abnormal, experiment.config["evaluation"]["seed"])
    except GradbenchError as reason:
        text = f"too few images for the folds; {note}" if note else str(reason)
        raise MissingData(text) from reason
