"""The declarations of methods, and their kinds: detectors and classifiers."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Self

import torch
from torch import Tensor

from gradbench.outputs.members import MEMBERS
from gradbench.outputs.perturbed import Loss, PerturbedPass, PlannedPass

Outputs = Mapping[str, Tensor]
"""Outputs of f by name, each (N, ...): for example `logits` (N, classes)."""

BANK_EXTRAS = ("labels", "head/weight", "head/bias")
"""Names that may stand in `bank_reads` besides outputs: the true labels (N,) of the training
images, and weight (classes, D) and bias (classes,) of f's last linear layer. `labels` may stand in
`hold_out_reads` too."""
LEARNED = "learned/"
"""Start of further such names, `learned/<output>/<tensor>`: what an output of f learned from these
images. Whoever reads one reads `labels`, too, without which there is nothing to learn from."""

SUPERVISION = ("none", "synthetic", "tuning", "training")
PREDICTIONS = ("score", "probabilities")
"""A score is (N,), probabilities are (N, classes)."""


def outputs_among(names: Iterable[str]) -> list[str]:
    """Return those names of `bank_reads`, or of other reads, that are outputs of f.

    >>> outputs_among(["logits", "labels", "head/bias", "learned/class_alignments/all/gram"])
    ['logits']
    """
    return [n for n in names if n not in BANK_EXTRAS and not n.startswith(LEARNED)]


def learned_among(names: Iterable[str]) -> dict[str, str]:
    """Return the names of tensors that outputs learned, with the name of the output of each.

    >>> learned_among(["logits", "learned/class_alignments/all/gram"])
    {'learned/class_alignments/all/gram': 'class_alignments/all'}
    """
    learned = [name for name in names if name.startswith(LEARNED)]
    return {name: name.removeprefix(LEARNED).rpartition("/")[0] for name in learned}


@dataclass(frozen=True)
class Info:
    """The paper of a method (venue with the year) and its authors' code, empty if none is public.

    `own` marks a method of gradbench's own, built on the paper and not found there.
    """

    title: str
    venue: str
    url: str
    code: str = ""
    own: bool = False


@dataclass(frozen=True)
class Samples:
    """Outputs of f for normal and abnormal images, normal ones first; `abnormal` is (N,) bool.

    `order` is the place of each image in a random order, by which few of many are drawn; `passes`
    makes a perturbed pass over the images at some ascending rows.
    """

    outputs: Outputs
    abnormal: Tensor
    order: Tensor | None = None
    passes: Callable[[PerturbedPass, Tensor], Tensor] | None = None

    @classmethod
    def normal(cls, outputs: Outputs) -> Samples:
        """Return outputs of normal images alone."""
        size = len(next(iter(outputs.values()))) if outputs else 0
        return cls(outputs, torch.zeros(size, dtype=torch.bool))

    @classmethod
    def join(cls, normal: Outputs, abnormal: Outputs) -> Samples:
        """Put the outputs of normal and of abnormal images together."""
        sizes = [len(next(iter(side.values()), ())) for side in (normal, abnormal)]
        return cls(
            {name: torch.cat([normal[name], abnormal[name]]) for name in normal},
            torch.arange(sum(sizes)) >= sizes[0],
        )

    @property
    def clean(self) -> Outputs:
        """The outputs of the normal images."""
        return {name: values[~self.abnormal] for name, values in self.outputs.items()}

    def draw(self, count: int) -> Samples:
        """Return the first images of each side in the random order, at most so many of a side."""
        sides = [torch.nonzero(self.abnormal == side).flatten() for side in (False, True)]
        rows = torch.cat([r[self.order[r].argsort()[:count]].sort().values for r in sides])
        return Samples(
            {name: values[rows] for name, values in self.outputs.items()},
            self.abnormal[rows],
            self.order[rows],
            lambda one, inner: self.passes(one, rows[inner]),
        )

    def perturb(self, one: PerturbedPass) -> Tensor:
        """Return the result of a perturbed pass over the images, (N, magnitudes, D)."""
        return self.passes(one, torch.arange(len(self.abnormal)))

    def after_steps(
        self, source: str, loss: Loss, magnitudes: Sequence[float]
    ) -> dict[float, Tensor]:
        """Return an output (N, D) after a step of every size; where that is 0, as it was read."""
        steps = tuple(m for m in magnitudes if m)
        values = {0.0: self.outputs[source]}
        if steps:
            moved = self.perturb(PerturbedPass(source, loss, steps))
            values |= {m: moved[:, i] for i, m in enumerate(steps)}
        return {m: values[m] for m in magnitudes}


@dataclass(frozen=True)
class PassCount:
    """Numbers of passes through f; `by_class` if every class but one takes one more of both."""

    forward: int
    backward: int
    by_class: bool = False

    def __str__(self) -> str:
        more = ", one more of both for every class but one" if self.by_class else ""
        return f"{self.forward} forward, {self.backward} backward{more}"


def _passes(reads: Sequence[str], networks: int) -> tuple[int, int]:
    """Return the forward and backward passes that outputs of one batch take.

    Those of `members` are one of each of so many networks.
    """
    back = sum(name.startswith("squared_norms") for name in reads)
    for kind in ("neuron_states", "gradient_density"):  # one serves all layers
        back += any(name.startswith(kind) for name in reads)
    back += sum(name.startswith("class_alignments") for name in reads)
    further = {name: networks for name in reads if name == MEMBERS}
    further |= {name: 1 for name in reads if name == "extremes"}
    further |= {n: int(n.partition("/")[2]) for n in reads if n.startswith("dropout_logits/")}
    return max(back, int(len(reads) > len(further))) + sum(further.values()), back


class Fitted:
    """Something whose fitted state is a flat dict of tensors, so that it is kept without pickle.

    `learned` names the attributes that make up the state: tensors, empty before the fit; numbers,
    None before it; or parts with a state of their own, whose names come before a dot.
    """

    learned: ClassVar[Sequence[str]] = ()

    def state(self) -> dict[str, Tensor]:
        """Return the fitted state, empty before the fit and where there is none."""
        state = {}
        for name in self.learned:
            value = getattr(self, name)
            if isinstance(value, Tensor):
                state |= {name: value} if value.numel() else {}
            elif isinstance(value, int | float):
                kind = torch.float64 if isinstance(value, float) else torch.int64
                state[name] = torch.tensor(value, dtype=kind)
            elif value is not None:
                state |= {f"{name}.{n}": t for n, t in value.state().items()}
        return state

    def load(self, state: Mapping[str, Tensor]) -> Self:
        """Take over a fitted state."""
        for name in self.learned:
            value = getattr(self, name)
            if isinstance(value, Tensor):
                setattr(self, name, state[name])
            elif value is None or isinstance(value, int | float):
                setattr(self, name, state[name].item())
            else:
                setattr(self, name, value.load(part_of(state, f"{name}.")))
        return self


def part_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the entries whose names have a prefix, without it."""
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}


def layers_of(state: Mapping[str, Tensor], part: str = "") -> dict[str, Tensor]:
    """Return the entries `<number>/<part><layer>` by layer, in the order of the numbers.

    Files keep tensors in the order of their names, where that of layer 10 stands before layer 2's.
    """
    layers = {}
    for name, tensor in state.items():
        if match := re.fullmatch(rf"(\d+)/{part}(.+)", name):
            layers[int(match[1])] = match[2], tensor
    return dict(layers[number] for number in sorted(layers))


class Method(Fitted, ABC):
    """A prediction from outputs of f; its YAML file gives its settings.

    Attributes:
        info: the paper, or the one that a method of our own is built on.
        supervision: what it sees of challenges: `none`, `synthetic` (only those it makes itself
            from clean images), `tuning` (to choose hyperparameters), `training` (to fit weights).
        predicts: what a prediction is, one of `PREDICTIONS`; a task measures one kind.
        reads: names of the outputs that it predicts from.
        version: raised when fits or predictions change, so that kept ones are not mistaken for
            them.
        bank_reads: names of the outputs it needs on training images, empty if none, or of
            `BANK_EXTRAS`, or what an output learned; what predictions need of them belongs to the
            fitted state.
        bank_images: how many training images it needs at most, the same share of every class; None
            for all, which outputs that others read too cost nothing more.
        hold_out_reads: names of the outputs, or `labels`, that it needs on clean images that f was
            not trained on, for fits without challenges; empty if none.
        synthetic: challenges that are made for it from the hold-out, for supervision `synthetic`:
            level, or None where there is none, by name in `configs/challenge/`.
        synthetic_images: hold-out images that they are made from, at most.
        half: score at which a detector's own probability is 0.5 (that the image is abnormal, for
            msp that of the class named), None where it has none.
        networks: of the run, for those that read all of them, `members`; told by the run.
        drawn: images of each side of *choose* that it gets at most, None for all: for methods
            that make further passes over them.
    """

    info: ClassVar[Info]
    supervision: ClassVar[str]
    predicts: ClassVar[str]
    reads: Sequence[str]
    version: ClassVar[int] = 1
    bank_reads: Sequence[str] = ()
    bank_images: int | None = None
    hold_out_reads: Sequence[str] = ()
    synthetic: Mapping[str, int | None] = MappingProxyType({})
    synthetic_images: int = 0
    half: ClassVar[float | None] = None
    networks: int = 1
    drawn: int | None = None

    @property
    def perturbed_passes(self) -> Mapping[str, PerturbedPass]:
        """Passes over perturbed images whose results `predict` needs, by name, known once fitted.

        They stand beside the outputs of `reads` in what `predict` is given: (N, magnitudes, D).
        """
        return {}

    def planned_passes(self, layers: Sequence[str]) -> Sequence[PlannedPass]:
        """Return the passes over perturbed images that fitting and predicting take at most.

        `layers` are the names of the outputs `layer_means/<layer>` of f, in order.
        """
        passes = self.perturbed_passes.values()
        return [PlannedPass("measure", p.source, len(p.magnitudes), what=p) for p in passes]

    @property
    def pass_count(self) -> PassCount:
        """Passes through f that the prediction of an image takes, once fitted.

        A pass that ends at a layer counts as one. Outputs that several detectors read come from
        one pass, which counts for each.
        """
        views = [n.removeprefix("mirrored/") for n in self.reads if n.startswith("mirrored/")]
        plain = [name for name in self.reads if not name.startswith("mirrored/")]
        passes = [_passes(names, self.networks) for names in (plain, views)]
        forward, backward = map(sum, zip(*passes))
        steps = sum(1 for _ in self.perturbed_passes)
        moved = sum(len(what.magnitudes) for what in self.perturbed_passes.values())
        by_class = any(name.endswith("fisher_traces") for name in self.reads)
        return PassCount(forward + steps + moved, backward + steps, by_class)

    @property
    def reads_members(self) -> bool:
        """Tell whether it compares all networks of a run, so that f alone is not enough for it."""
        every = (*self.reads, *self.bank_reads, *self.hold_out_reads)
        return any(name.removeprefix("mirrored/") == MEMBERS for name in every)

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> Self:
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
    def predict(self, outputs: Outputs) -> Tensor:
        """Return the predictions for outputs, (N, ...).

        Each is finite and a function of the image's own outputs, which are left as they are.
        """

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


class Detector(Method):
    """A score for outputs of f: higher = more likely abnormal. A member of `configs/detector/`."""

    predicts = "score"

    @abstractmethod
    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) scores, higher = more likely abnormal.

        Each is finite and a function of the image's own outputs, which are left as they are.
        """

    def predict(self, outputs: Outputs) -> Tensor:
        """Return (N,) scores, see `score`."""
        return self.score(outputs)


class Classifier(Method):
    """Probabilities of f's classes, from outputs of f: a second stage, or f itself."""

    predicts = "probabilities"

    @abstractmethod
    def predict(self, outputs: Outputs) -> Tensor:
        """Return (N, classes) probabilities."""
