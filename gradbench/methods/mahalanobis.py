"""The Mahalanobis detector in its four variants: V, P, FE, P+FE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from gradbench.methods.base import Detector, Info, Outputs, Samples, layers_of
from gradbench.methods.gaussians import Gaussians
from gradbench.methods.regression import TRIAL, Regression
from gradbench.methods.tuning import best_setting, check_numbers, check_whole
from gradbench.outputs.perturbed import PerturbedPass, PlannedPass

MAGNITUDES = (0, 0.01, 0.005, 0.002, 0.0014, 0.001, 0.0005)
REGRESSED = 500
"""Perturbed images of each side that a regression is fitted on, as in the public code."""


class MahalanobisV(Detector):
    """Vanilla: half the squared distance of the last feature layer to the nearest class.

    Class means and one covariance of the spatial means of the feature layer, from the training
    images (Lee et al. 2018, equations 1 and 2). Computed in float64.
    """

    info = Info(
        "A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial "
        "Attacks",
        "NeurIPS 2018",
        "https://arxiv.org/abs/1807.03888",
        "https://github.com/pokaxpoka/deep_Mahalanobis_detector",
    )
    supervision = "none"
    bank_reads = ("layer_means", "labels")
    every_layer = False

    def __init__(self):
        self.gaussians: dict[str, Gaussians] = {}

    @property
    def reads(self) -> Sequence[str]:
        """The feature layers; once fitted, those that are scored and have not moved."""
        return tuple(self.gaussians) or ("layer_means",)

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> MahalanobisV:
        """Fit the Gaussians to the training images."""
        names = [name for name in bank if name.startswith("layer_means/")]
        self.gaussians = {
            name: Gaussians.fit(bank[name], bank["labels"])
            for name in (names if self.every_layer else names[-1:])
        }
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) half squared distances to the nearest class."""
        ((name, gaussians),) = self.gaussians.items()
        return gaussians.nearest(outputs[name])

    def state(self) -> dict[str, Tensor]:
        """Return the Gaussians of every layer, in order, and whatever else is fitted."""
        gaussians = {
            f"{i}/{part}/{name}": getattr(gaussians, part)
            for i, (name, gaussians) in enumerate(self.gaussians.items())
            for part in ("means", "precision")
        }
        return gaussians | super().state()

    def load(self, state: Mapping[str, Tensor]) -> MahalanobisV:
        """Take over the Gaussians, and whatever else is fitted."""
        precisions = layers_of(state, "precision/")
        self.gaussians = {
            name: Gaussians(means, precisions[name])
            for name, means in layers_of(state, "means/").items()
        }
        return super().load(state)


class MahalanobisFE(MahalanobisV):
    """Feature ensemble: logistic regression on the distances of all feature layers.

    Differs from the paper: fitted on the whole *fit* part (500 + 500 images in the public code),
    and see `Regression`.
    """

    supervision = "training"
    every_layer = True
    half = 0.0
    learned = ("regression",)

    def __init__(self):
        super().__init__()
        self.regression = Regression()

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> MahalanobisFE:
        """Fit the Gaussians to the training images, the regression to *fit*."""
        super().fit(bank, fit, choose, seed)
        self.regression.fit(self._distances(fit.outputs), fit.abnormal, seed)
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) logits of the regression."""
        return self.regression(self._distances(outputs))

    def _distances(self, outputs: Outputs) -> Tensor:
        """Return (N, layers)."""
        distances = [gaussians.nearest(outputs[n]) for n, gaussians in self.gaussians.items()]
        return torch.stack(distances, dim=1)


class _Stepping(MahalanobisV):
    """The base of the variants with an input step: x' = x - m sign(d distance / dx) in each layer.

    Args:
        magnitudes: steps of the pixels in [0, 1] to choose from, from 0.
        drawn: images of each side of *choose* that are used at most.

    Raises:
        GradbenchError: for a setting out of range.
    """

    learned = ("magnitude",)
    tries: ClassVar[tuple[str, ...]] = ("choose",)
    """Parts of a fold on which steps are tried."""
    uses: ClassVar[Mapping[str, int | None]] = {"measure": None}
    """Parts of a fold that the chosen step is used on, and how many images of a side at most."""

    def __init__(self, magnitudes: Sequence[float] = MAGNITUDES, drawn: int = 200):
        super().__init__()
        self.magnitudes = check_numbers("magnitudes", magnitudes)
        self.drawn = check_whole("drawn", drawn, least=20)
        self.magnitude: float | None = None

    @property
    def reads(self) -> Sequence[str]:
        """The feature layers, where no step is made."""
        return () if self.magnitude else super().reads

    @property
    def perturbed_passes(self) -> Mapping[str, PerturbedPass]:
        """Every layer after the step, once that is chosen."""
        if not self.magnitude:
            return {}
        return {
            name: PerturbedPass(name, gaussians, (self.magnitude,))
            for name, gaussians in self.gaussians.items()
        }

    def planned_passes(self, layers: Sequence[str]) -> Sequence[PlannedPass]:
        """Return the passes of every layer: all steps over few images, the chosen one over all."""
        steps = sum(m > 0 for m in self.magnitudes)
        if not steps:
            return []
        sources = layers if self.every_layer else layers[-1:]
        tried = [PlannedPass(part, source, steps, self.drawn)
                 for part in self.tries for source in sources]  # fmt: skip
        chosen = [
            PlannedPass(part, source, 1, most, chosen=True)
            for part, most in self.uses.items()
            for source in sources
        ]
        return [*tried, *chosen]

    def _tried(self, samples: Samples) -> dict[float, Outputs]:
        """Return the layers of samples after every step, by its size."""
        moved = {
            name: samples.after_steps(name, gaussians, self.magnitudes)
            for name, gaussians in self.gaussians.items()
        }
        return {m: {name: moved[name][m] for name in moved} for m in self.magnitudes}

    def _moved(self, outputs: Outputs) -> Outputs:
        """Return the layers to score: after the chosen step where there is one."""
        return {n: outputs[n][:, 0] for n in self.gaussians} if self.magnitude else outputs


class MahalanobisP(_Stepping):
    """Input preprocessing: the last feature layer after a step towards the nearest class.

    The step with the best TNR at 95 % TPR on *choose* (Lee et al. 2018, algorithm 1).
    Differs from the paper: at most 200 + 200 images of *choose* decide, for attacks too by TNR.
    """

    supervision = "tuning"

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> MahalanobisP:
        """Fit the Gaussians to the training images, choose the step."""
        self.magnitude = None
        super().fit(bank, fit, choose, seed)
        score = super().score
        tried = [(m, score(outputs)) for m, outputs in self._tried(choose).items()]
        self.magnitude = best_setting(tried, choose.abnormal)
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) half squared distances to the nearest class after the step."""
        return super().score(self._moved(outputs))


class MahalanobisPFE(_Stepping, MahalanobisFE):
    """Both: logistic regression on the distances of all feature layers, each after its own step.

    For every step size a regression is fitted on at most 200 + 200 images of *fit*; the size with
    the best TNR at 95 % TPR on *choose* is kept, and its regression fitted on 500 + 500 images, or
    on all of *fit* if no step is best. In the public code 500 + 500 images serve each purpose.
    """

    learned = ("regression", "magnitude")
    tries = ("fit", "choose")
    uses: ClassVar[Mapping[str, int | None]] = {"fit": REGRESSED, "measure": None}

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> MahalanobisPFE:
        """Fit the Gaussians to the training images, choose the step, fit the regression."""
        self.magnitude = None
        MahalanobisV.fit(self, bank, fit, choose, seed)
        few = fit.draw(self.drawn)
        fitted, watched = self._tried(few), self._tried(choose)
        tried = []
        for m in self.magnitudes:
            trial = Regression().fit(self._distances(fitted[m]), few.abnormal, strength=TRIAL)
            tried.append((m, trial(self._distances(watched[m]))))
        self.magnitude = best_setting(tried, choose.abnormal)
        used = fit.draw(REGRESSED) if self.magnitude else fit
        moved = {name: used.perturb(one) for name, one in self.perturbed_passes.items()}
        outputs = {**used.outputs, **moved}
        self.regression.fit(self._distances(self._moved(outputs)), used.abnormal, seed)
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) logits of the regression."""
        return MahalanobisFE.score(self, self._moved(outputs))
