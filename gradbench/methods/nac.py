"""Coverage of the states of neurons by those of training images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from gradbench.errors import GradbenchError
from gradbench.methods.base import Detector, Info, Outputs, Samples, layers_of
from gradbench.methods.tuning import best_setting, check_numbers, check_whole

BASE = 1000.0
STATES = "neuron_states"
Lists = Sequence[Sequence[float]]


def thresholds(bins: int) -> Tensor:
    """Return M ascending thresholds of states, (M,) float64, as in the authors' code.

    From 0 to 1 they are log-spaced, densest at 0.5, where the states of neurons without influence
    are; the last two lie above 1.
    """
    points = torch.linspace(1, math.sqrt(BASE), bins // 2, dtype=torch.float64)
    lower = points.log() / math.log(BASE)
    upper = (1 - lower).flip(0)
    upper[-1] += 0.01
    return torch.cat([lower[:-1], upper, torch.tensor([1.2], dtype=torch.float64)])


@dataclass(frozen=True)
class Layer:
    """The coverage of one layer: steepness alpha, and (M - 1, channels) shares in [0, 1]."""

    alpha: float
    coverage: Tensor

    @classmethod
    def fit(cls, states: Tensor, alpha: float, bins: int, full: float) -> Layer:
        """Count training images (N, channels) by bin; a bin with `full` of them is covered."""
        places = _places(states, alpha, bins)
        counts = torch.zeros(bins - 1, states.shape[1], dtype=torch.float64)
        counts.scatter_add_(0, places, torch.ones_like(places, dtype=torch.float64))
        return cls(alpha, (counts / full).clamp(max=1))

    def __call__(self, states: Tensor) -> Tensor:
        """Return the mean coverage of the bins that the states of images lie in, (N,)."""
        places = _places(states, self.alpha, len(self.coverage) + 1)
        return self.coverage.gather(0, places).mean(1)


def _places(states: Tensor, alpha: float, bins: int) -> Tensor:
    """Return the number of the bin of every state sigmoid(alpha z dKL/dz)."""
    squashed = (alpha * states.double()).sigmoid().contiguous()
    return torch.bucketize(squashed, thresholds(bins), right=True) - 1


class NAC(Detector):
    """NAC-UE (Liu et al. 2024): s = -mean of min(n / O, 1) over neurons, then over layers.

    The state of a neuron is sigmoid(alpha z dKL(u, p)/dz), see the output `neuron_states`; n is the
    number of training images whose state lies in the bin of the image's, O the number from which
    on a bin counts as covered. M - 1 bins are log-spaced towards 0.5, as in the authors' code. The
    layers are the last feature layers, four of a ResNet-18. One pass forward and back. In float64.

    No challenge image is seen, but the defaults are the authors' for a ResNet-18 on CIFAR-10, which
    they chose on validation images of challenges.

    Differs from the paper: states are means over positions, not sums, so that alpha is the
    authors' times the layer's positions in images of 32x32: 0.001 times 1,024 and 256, 1,000 times
    64, and 100 as it is, since their last layer is the pooled one.

    Args:
        alphas: steepness of each layer, the deepest last, above 0. Of a network with fewer feature
            layers the last settings are taken.
        bins: M of each layer, even, at least 4.
        full: O of each layer, above 0.
        images: training images that are counted, the same share of every class.

    Raises:
        GradbenchError: for a setting out of range, or lists of several lengths.
    """

    info = Info(
        "Neuron Activation Coverage: Rethinking Out-of-distribution Detection and Generalization",
        "ICLR 2024",
        "https://arxiv.org/abs/2306.02879",
        "https://github.com/BierOne/ood_coverage",
    )
    supervision = "none"
    bank_reads = (STATES,)

    def __init__(
        self,
        alphas: Sequence[float] = (1.024, 0.256, 64000, 100),
        bins: Sequence[int] = (500, 50, 500, 50),
        full: Sequence[float] = (100, 5, 100, 50),
        images: int = 1000,
    ):
        one = ([[value] for value in values] for values in (alphas, bins, full))
        self._set("nac", *one, images)

    @property
    def reads(self) -> Sequence[str]:
        """The states of the feature layers; once fitted, of those that are scored."""
        return tuple(self.layers) or (STATES,)

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> NAC:
        """Count the states of training images."""
        self.layers = {name: layers[0] for name, layers in self._fitted(bank, seed).items()}
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) minus the coverage, -1 to 0."""
        covered = [layer(outputs[name]) for name, layer in self.layers.items()]
        return -torch.stack(covered).mean(0)

    def state(self) -> dict[str, Tensor]:
        """Return steepness and coverage of every layer, in order."""
        state = {}
        for i, (name, layer) in enumerate(self.layers.items()):
            state[f"{i}/alpha/{name}"] = torch.tensor(layer.alpha, dtype=torch.float64)
            state[f"{i}/coverage/{name}"] = layer.coverage
        return state

    def load(self, state: Mapping[str, Tensor]) -> NAC:
        """Take over steepness and coverage."""
        alphas = layers_of(state, "alpha/")
        self.layers = {
            name: Layer(alphas[name].item(), coverage)
            for name, coverage in layers_of(state, "coverage/").items()
        }
        return self

    def _set(self, name: str, alphas: Lists, bins: Lists, full: Lists, images: int) -> None:
        """Take settings: of every layer a list of values for alpha, M and O."""
        if not len(alphas) == len(bins) == len(full) > 0:
            raise GradbenchError(f"{name}: alphas, bins and full take one entry for each layer")
        self.grids = []
        for steepness, counts, covered in zip(alphas, bins, full):
            for count in counts:
                if check_whole(f"{name} bins", count, least=4) % 2:
                    raise GradbenchError(f"{name} bins={count}: an even number, at least 4")
            numbers = check_numbers(f"{name} alphas", steepness, positive=True)
            covering = check_numbers(f"{name} full", covered, positive=True)
            self.grids.append(list(product(numbers, counts, covering)))
        self.bank_images = check_whole(f"{name} images", images)
        self.layers: dict[str, Layer] = {}

    def _fitted(self, bank: Outputs, seed: int) -> dict[str, list[Layer]]:
        """Return of every layer the coverage with each setting; of too many images, some count."""
        states = [(name, t) for name, t in bank.items() if name.startswith(f"{STATES}/")]
        count, depth = len(states[0][1]), min(len(states), len(self.grids))
        rows = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        return {
            name: [Layer.fit(t[rows[: self.bank_images]], *setting) for setting in grid]
            for (name, t), grid in zip(states[-depth:], self.grids[-depth:])
        }


class NACTuned(NAC):
    """NAC-UE (Liu et al. 2024), the settings of all layers chosen together on challenge images.

    As the published numbers are. Every combination of the values that are listed for the layers is
    tried; the one with the best TNR at 95 % TPR on *choose* is kept.

    Differs from the paper: the authors take the best AUROC. Grids are those of their code for
    CIFAR-10, alpha as in `NAC`.

    Args:
        alphas: values of alpha to choose from, a list for each layer, the deepest last.
        bins: likewise of M.
        full: likewise of O.
        images: training images that are counted, the same share of every class.

    Raises:
        GradbenchError: for a setting out of range, or lists of several lengths.
    """

    supervision = "tuning"

    def __init__(
        self,
        alphas: Sequence[Sequence[float]] = ((1.024, 5.12), (0.256,), (64000, 320000), (100,)),
        bins: Sequence[Sequence[int]] = ((50, 500), (50,), (50, 500), (50,)),
        full: Sequence[Sequence[float]] = ((5, 10, 50, 100), (5, 10), (100,), (10, 50)),
        images: int = 1000,
    ):
        self._set("nac_tuned", alphas, bins, full, images)

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> NACTuned:
        """Count the states of training images with all settings, and choose."""
        fitted = self._fitted(bank, seed)
        covered = (
            [(layer, layer(choose.outputs[name])) for layer in layers]
            for name, layers in fitted.items()
        )
        tried = (
            (layers, -torch.stack(coverages).mean(0))
            for layers, coverages in (zip(*together) for together in product(*covered))
        )
        self.layers = dict(zip(fitted, best_setting(tried, choose.abnormal)))
        return self
