"""Challenges that are made from the hold-out, for detectors that learn from those alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradbench.challenges.produce import produce
from gradbench.data.imageset import ImageSet
from gradbench.data.roles import draw_hold_out, stratified_subset
from gradbench.methods.base import Samples
from gradbench.outputs.extract import select_outputs
from gradbench.run.challenge_images import setup
from gradbench.run.context import NetworkContext
from gradbench.run.experiment import Cell

RELATIVES = (
    ("gaussian_noise", "shot_noise", "speckle_noise", "impulse_noise", "noise"),
    ("gaussian_blur", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "lens_blur"),
    ("fgsm", "bim", "pgd"),
)
"""Families of challenges so alike that a fit on one is half a fit on the others; the types of
CURE-TSR and their stand-ins by the name of the type."""


@dataclass(frozen=True)
class Synthetic:
    """Hold-out images, and the same images under each challenge, in the same order."""

    clean: ImageSet
    made: tuple[ImageSet, ...]

    @property
    def fingerprint(self) -> str:
        """Digest of all of them."""
        return " ".join(images.fingerprint for images in (self.clean, *self.made))


def make(context: NetworkContext, name: str) -> Synthetic:
    """Make a detector's own challenges; what the store holds is not made again."""
    experiment = context.experiment
    clean = stratified_subset(context.images.hold_out, experiment.detector(name).synthetic_images)
    made = (
        produce(setup(experiment, cell, context.f), clean, context.store)[0]
        for cell in experiment.own_cells(name)
    )
    return Synthetic(clean, tuple(made))


def samples(context: NetworkContext, name: str) -> tuple[Samples, Samples]:
    """Return the two halves that a detector fits and chooses on.

    Class-stratified; an image, its group and all that was made of them are on one side.
    """
    images, reads = make(context, name), context.experiment.detector(name).reads
    clean, *made = (
        select_outputs(context.read_outputs(one, reads).outputs, reads)
        for one in (images.clean, *images.made)
    )
    first = draw_hold_out(images.clean.labels, images.clean.groups, len(images.clean) // 2)
    return tuple(_side(clean, made, np.flatnonzero(rows)) for rows in (first, ~first))


def _side(clean: dict[str, Tensor], made: Sequence[dict[str, Tensor]], rows) -> Samples:
    index = torch.from_numpy(rows)
    abnormal = {name: torch.cat([one[name][index] for one in made]) for name in clean}
    return Samples.join({name: values[index] for name, values in clean.items()}, abnormal)


def relation(own: Sequence[Cell], measured: Cell) -> str:
    """Tell whether a measured challenge is one of a detector's own, or a relative.

    `fitted on NAME`, `fitted on a relative: NAME`, or empty.
    """
    family = getattr(measured.challenge, "family", "")
    for cell in own:
        if cell.challenge.family == family:
            return f"fitted on {cell.title}"
    family = getattr(measured.challenge, "type", family)
    for cell in own:
        if any(cell.challenge.family in group and family in group for group in RELATIVES):
            return f"fitted on a relative: {cell.title}"
    return ""
