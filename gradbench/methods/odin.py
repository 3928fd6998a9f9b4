"""ODIN: softmax with a temperature, after a small step of the input towards the class named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradbench.errors import GradbenchError
from gradbench.methods.base import Detector, Info, Outputs, Samples
from gradbench.methods.tuning import best_setting, check_numbers, check_whole
from gradbench.outputs.perturbed import PerturbedPass, PlannedPass

MAGNITUDES = (0, 0.0005, 0.001, 0.0014, 0.002, 0.0024, 0.005, 0.01, 0.05, 0.1, 0.2)
AGAIN = "logits after the step"


def odin_score(logits: Tensor, temperature: float) -> Tensor:
    """Return log((1 - p) / p) of the largest softmax probability p of logits (N, C) / T: (N,).

    Higher where f is less certain. It orders images as -p does, the score of Liang et al. 2018, but
    does not saturate: p = 1 / (1 + exp(score)).

    Raises:
        GradbenchError: for a network with one class, of which p says nothing.
    """
    others, top = _others_and_top(logits.double() / temperature)
    return others.logsumexp(1) - top


def _others_and_top(scaled: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits with -inf at the largest, (N, C), and the largest, (N,)."""
    if scaled.shape[1] < 2:
        raise GradbenchError("odin needs a network with two classes or more")
    top, named = scaled.max(1, keepdim=True)
    return scaled.scatter(1, named, -torch.inf), top[:, 0]


@dataclass(frozen=True)
class TopClass:
    """L = CE(z / T, argmax z), the loss whose gradient ODIN descends."""

    temperature: float

    def gradient(self, values: Tensor) -> Tensor:
        """Return dL/dz at (B, C) logits divided by (1 - p) / T: never rounded to zero.

        It is -1 for the class named, and the softmax among the others for each of them.
        """
        others, _ = _others_and_top(values / self.temperature)
        towards = others.softmax(1)
        return towards.scatter(1, values.argmax(1, keepdim=True), -1.0)

    def settings(self) -> Mapping[str, float]:
        """Return the temperature."""
        return {"top_class_cross_entropy": float(self.temperature)}


class OdinFixed(Detector):
    """ODIN (Liang et al. 2018) with fixed temperature and step, so that it sees no challenge.

    The defaults are those of the paper for its network and data set.

    Args:
        temperature: T, above 0.
        magnitude: step of the pixels in [0, 1], from 0; the paper's normalised step over std.

    Raises:
        GradbenchError: for a setting out of range.
    """

    info = Info(
        "Enhancing The Reliability of Out-of-distribution Image Detection in Neural Networks",
        "ICLR 2018",
        "https://arxiv.org/abs/1706.02690",
        "https://github.com/facebookresearch/odin",
    )
    supervision = "none"

    def __init__(self, temperature: float = 1000.0, magnitude: float = 0.0014):
        (self.temperature,) = check_numbers("temperature", [temperature], positive=True)
        (self.magnitude,) = check_numbers("magnitude", [magnitude])

    @property
    def reads(self) -> Sequence[str]:
        """The logits, where no step is made or it is yet to be chosen."""
        return () if self.magnitude else ("logits",)

    @property
    def perturbed_passes(self) -> Mapping[str, PerturbedPass]:
        """The logits after the step."""
        if not self.magnitude:
            return {}
        return {AGAIN: PerturbedPass("logits", TopClass(self.temperature), (self.magnitude,))}

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) scores, see `odin_score`."""
        logits = outputs[AGAIN][:, 0] if self.magnitude else outputs["logits"]
        return odin_score(logits, self.temperature)


class Odin(OdinFixed):
    """ODIN (Liang et al. 2018), temperature and step chosen on challenge images.

    The setting with the best TNR at 95 % TPR on *choose*; T = 1 without a step, which is msp, is
    left out. Grids are those of the public code of the Mahalanobis detector.
    Differs from the paper: at most 200 + 200 images of *choose* decide (1,000 + 1,000 there), equal
    settings are parted by AUROC, and the score is the log-odds of the paper's.

    Args:
        temperatures: values of T to choose from, above 0.
        magnitudes: steps of the pixels in [0, 1] to choose from, from 0.
        drawn: images of each side of *choose* that are used at most.

    Raises:
        GradbenchError: for a setting out of range.
    """

    supervision = "tuning"
    learned = ("temperature", "magnitude")

    def __init__(
        self,
        temperatures: Sequence[float] = (1, 10, 100, 1000),
        magnitudes: Sequence[float] = MAGNITUDES,
        drawn: int = 200,
    ):
        self.temperatures = check_numbers("temperatures", temperatures, positive=True)
        self.magnitudes = check_numbers("magnitudes", magnitudes)
        self.drawn = check_whole("drawn", drawn, least=20)
        if set(self.temperatures) == {1.0} and set(self.magnitudes) == {0.0}:
            raise GradbenchError("odin with temperature 1 and no step is msp: give other values")
        self.temperature: float | None = None
        self.magnitude: float | None = None

    def planned_passes(self, layers: Sequence[str]) -> Sequence[PlannedPass]:
        """Return a pass for every temperature over *choose*, and that of the chosen setting."""
        steps = tuple(m for m in self.magnitudes if m)
        if not steps:
            return []
        tried = [
            PlannedPass("choose", "logits", len(steps), self.drawn,
                        what=PerturbedPass("logits", TopClass(temperature), steps))
            for temperature in self.temperatures
        ]  # fmt: skip
        return [*tried, PlannedPass("measure", "logits", 1, chosen=True)]

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> Odin:
        """Choose temperature and step."""
        tried = []
        for temperature in self.temperatures:
            moved = choose.after_steps("logits", TopClass(temperature), self.magnitudes)
            tried += [
                ((temperature, m), odin_score(logits, temperature))
                for m, logits in moved.items()
                if (temperature, m) != (1.0, 0.0)
            ]
        self.temperature, self.magnitude = best_setting(tried, choose.abnormal)
        return self
