"""What every detector declares and offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from gradbench.outputs.perturbed import PerturbedPass, PlannedPass

Outputs = Mapping[str, Tensor]
"""Outputs of f by name, each (N, ...): for example `logits` (N, classes)."""

BANK_EXTRAS = ("labels", "head/weight", "head/bias")
"""What may stand in `bank_reads` besides outputs: the true labels (N,) of the training images, and
weight (classes, D) and bias (classes,) of f's last linear layer. `labels` may stand in
`hold_out_reads` too."""

SUPERVISION = ("none", "synthetic", "tuning", "training")


@dataclass(frozen=True)
class Info:
    """Where a detector comes from.

    Attributes:
        title: of the paper.
        venue: and year of publication.
        url: of the paper.
        code: of the authors, empty if none is public.
        own: the detector is gradbench's own, built on the paper and not found there.
    """

    title: str
    venue: str
    url: str
    code: str = ""
    own: bool = False


@dataclass(frozen=True)
class Samples:
    """Outputs of f for normal and abnormal images.

    Attributes:
        outputs: by name, normal images first.
        abnormal: (N,) bool.
        order: (N,) place of each image in a random order, by which few of many are drawn.
        again: gives further passes over images: maps a pass and ascending rows to its result.
    """

    outputs: Outputs
    abnormal: Tensor
    order: Tensor | None = None
    again: Callable[[PerturbedPass, Tensor], Tensor] | None = None

    @classmethod
    def normal(cls, outputs: Outputs) -> Samples:
        """Return outputs of normal images alone."""
        size = len(next(iter(outputs.values()))) if outputs else 0
        return cls(outputs, torch.zeros(size, dtype=torch.bool))

    @classmethod
    def join(cls, normal: Outputs, abnormal: Outputs) -> Samples:
        """Put the outputs of normal and of abnormal images together."""
        names = list(normal)
        sizes = [len(next(iter(side.values()), ())) for side in (normal, abnormal)]
        return cls(
            {name: torch.cat([normal[name], abnormal[name]]) for name in names},
            torch.arange(sum(sizes)) >= sizes[0],
        )

    def drawn(self, count: int) -> Samples:
        """Return the first images of each side in the random order, at most so many of a side."""
        sides = [torch.nonzero(self.abnormal == side).flatten() for side in (False, True)]
        rows = torch.cat([r[self.order[r].argsort()[:count]].sort().values for r in sides])
        return Samples(
            {name: values[rows] for name, values in self.outputs.items()},
            self.abnormal[rows],
            self.order[rows],
            lambda what, inner: self.again(what, rows[inner]),
        )

    def look(self, what: PerturbedPass) -> Tensor:
        """Return the result of a further pass over the images, (N, magnitudes, D)."""
        return self.again(what, torch.arange(len(self.abnormal)))

    def seen(self, detector: Detector) -> Outputs:
        """Return the outputs that a detector scores, further passes included."""
        return {
            **self.outputs,
            **{n: self.look(what) for n, what in detector.perturbed_passes.items()},
        }


@dataclass(frozen=True)
class PassCount:
    """Passes through f.

    Attributes:
        forward: number of forward passes.
        backward: number of backward passes.
    """

    forward: int
    backward: int

    def __str__(self) -> str:
        return f"{self.forward} forward, {self.backward} backward"


class Detector(ABC):
    """A score for outputs of f: higher = more likely abnormal.

    A detector is built from its YAML file in `configs/detector/`; its constructor holds settings,
    `fit` learns, `score` measures. Fitted state is a flat dict of tensors, so that it can be kept
    without pickle.

    Attributes:
        info: the paper, or the one that a detector of our own is built on.
        supervision: what it sees of challenges: `none`, `synthetic` (only those it makes itself
            from clean images), `tuning` (to choose hyperparameters), `training` (to fit weights).
        reads: names of the outputs it scores.
        bank_reads: names of the outputs it needs on training images, empty if none. `labels` asks
            for their labels, `head/weight` and `head/bias` for f's last linear layer, see
            `BANK_EXTRAS`;
            what scoring needs of them belongs to the fitted state.
        hold_out_reads: names of the outputs, or `labels`, that it needs on clean images that f was
            not trained on, for fits without challenges; empty if none.
        synthetic: challenges that are made for it from the hold-out, for supervision `synthetic`:
            level, or None where there is none, by name in `configs/challenge/`.
        synthetic_images: hold-out images that they are made from, at most.
        version: raised when fits or scores change, so that kept ones are not mistaken for them.
        half: score at which the detector's own probability is 0.5 (that the image is abnormal, for
            msp that of the class named), None where it has none.
        drawn: images of each side of *choose* that it gets at most, None for all: for detectors
            that make further passes over them.
    """

    info: ClassVar[Info]
    supervision: ClassVar[str]
    reads: Sequence[str]
    bank_reads: Sequence[str] = ()
    hold_out_reads: Sequence[str] = ()
    synthetic: Mapping[str, int | None] = MappingProxyType({})
    synthetic_images: int = 0
    half: ClassVar[float | None] = None
    version: ClassVar[int] = 1
    drawn: int | None = None

    @property
    def perturbed_passes(self) -> Mapping[str, PerturbedPass]:
        """Passes over perturbed images whose results `score` needs, by name, known once fitted.

        They stand beside the outputs of `reads` in what `score` is given, each (N, magnitudes, D).
        """
        return {}

    def planned_passes(
        self, layers: Sequence[str], bank: Outputs | None = None
    ) -> Sequence[PlannedPass]:
        """Return the passes over perturbed images that fit and score ask for, at most, for plans.

        Args:
            layers: names of the outputs `layer_means/<layer>` of f, in order.
            bank: see `fit`; without it, losses that are fitted to it are not told.
        """
        passes = self.perturbed_passes.values()
        return [PlannedPass("measure", p.source, len(p.magnitudes), what=p) for p in passes]

    @property
    def pass_count(self) -> PassCount:
        """Passes through f that scoring an image takes, once fitted.

        A pass that ends at a layer counts as one. Outputs that several detectors read come from
        one pass, which counts for each.
        """
        norms = sum(name.startswith("squared_norms") for name in self.reads)
        steps = sum(1 for _ in self.perturbed_passes)
        moved = sum(len(what.magnitudes) for what in self.perturbed_passes.values())
        return PassCount(max(norms, int(bool(self.reads))) + steps + moved, norms + steps)

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> Detector:
        """Learn, and return itself.

        Args:
            bank: what `bank_reads` names: outputs on f's training images, their labels, tensors
                of f's last layer. For detectors that learn from challenges also what
                `hold_out_reads` names, as `hold_out/<name>`.
            fit: for detectors that learn from challenges, the *fit* part of a fold; for those with
                `synthetic`, half of the hold-out's images with what was made from them; for all
                others the outputs of `hold_out_reads` on the hold-out, all of it normal.
            choose: likewise the *choose* part, the other half, or the hold-out.
            seed: of whatever is random.
        """
        return self

    @abstractmethod
    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) scores, higher = more likely abnormal.

        Each is finite and a function of the image's own outputs, which are left as they are.
        """

    def state(self) -> dict[str, Tensor]:
        """Return the fitted state, empty before `fit` and where there is none."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> Detector:
        """Take over a fitted state."""
        return self

    @property
    def clean_seen(self) -> str:
        """Which clean images it is fitted on: of f's training set, of the hold-out, of the test."""
        seen = {
            "f's training images": any(not read.startswith("head/") for read in self.bank_reads),
            "hold-out": bool(self.hold_out_reads or self.synthetic),
            "other test images": self.learns_from_challenges,
        }
        return ", ".join(name for name, is_seen in seen.items() if is_seen) or "none"

    @property
    def learns_from_challenges(self) -> bool:
        """Tell whether abnormal samples are used in any way, so that each fold needs a fit."""
        return self.supervision in ("tuning", "training")
