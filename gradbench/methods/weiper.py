"""Densities of the features and of their projections on perturbed weights of the last layer."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from gradbench.errors import GradbenchError
from gradbench.methods.banks import HEAD
from gradbench.methods.base import Detector, Info, Outputs, Samples
from gradbench.methods.tuning import check_whole

EPSILONS = (0.01, 0.025)
"""Added to the densities of the features and of the projections, as in the authors' code."""
BLOCK = 2**22
"""Projections that are held at once."""


def densities(values: Tensor, low: Tensor, high: Tensor, bins: int) -> Tensor:
    """Return the share of each image's values (N, K) that lies in each bin, (N, bins).

    Bins divide the range from `low` to `high` evenly; values outside are in none of them.
    """
    places = ((values - low) / (high - low + 1e-8) * bins).floor()
    outside = (places < 0) | (places >= bins)
    places = torch.where(outside, bins, places).long()
    counts = values.new_zeros(len(values), bins + 1)
    counts.scatter_add_(1, places, torch.ones_like(values))
    return counts[:, :bins] / values.shape[1]


def divergence(density: Tensor, images: Tensor, smooth: int, epsilon: float) -> Tensor:
    """Return KL(p, q) + KL(q, p) of densities q (N, bins) of images from one p (bins,): (N,).

    Those of the images are smoothed by a mean over so many bins, of which the outermost go on
    beyond the ends; epsilon is added to both, and both are normalised.
    """
    before = (smooth - 1) // 2
    padded = functional.pad(images[:, None], (before, smooth - 1 - before), mode="replicate")
    q = functional.avg_pool1d(padded, smooth, stride=1)[:, 0] + epsilon
    p, q = (density + epsilon) / (density + epsilon).sum(), q / q.sum(1, keepdim=True)
    return ((p - q) * (p.log() - q.log())).sum(1)


class WeiPer(Detector):
    """WeiPer+KLD (Granz, Heurich and Landgraf 2024): s = D_1 + lambda_1 D_2 - lambda_2 m.

    D_1 is the symmetric Kullback-Leibler divergence between the density of the image's features, as
    if all of them were draws of one variable, and the mean density of f's training images. D_2 is
    that of its projections (w_c + n) h + b_c on r perturbed copies of the last layer's weights;
    n is noise of the length delta |w_c|. m is the mean over the copies of the largest softmax
    probability. In float64.

    No challenge image is seen, but the defaults are the authors' for a ResNet-18 on CIFAR-10, which
    they found on validation images of challenges.

    Differs from the paper: the copies are drawn once; the authors' code draws them for every batch.

    Args:
        repeats: r.
        delta: length of the noise over that of the weights, from 0.
        bins: of the densities.
        lambda_1: weight of the projections, from 0.
        lambda_2: weight of the softmax, from 0.
        smooth: bins over which the density of the features is smoothed.
        smooth_perturbed: likewise that of the projections.

    Raises:
        GradbenchError: for a setting out of range.
    """

    info = Info(
        "WeiPer: OOD Detection using Weight Perturbations of Class Projections",
        "NeurIPS 2024",
        "https://arxiv.org/abs/2405.17164",
        "https://github.com/mgranz/weiper",
    )
    supervision = "none"
    reads = ("features",)
    bank_reads = ("features", *HEAD)
    learned = ("weight", "bias", "ranges", "means")

    def __init__(
        self,
        repeats: int = 100,
        delta: float = 1.8,
        bins: int = 100,
        lambda_1: float = 2.5,
        lambda_2: float = 0.1,
        smooth: int = 4,
        smooth_perturbed: int = 15,
    ):
        self.repeats = check_whole("weiper repeats", repeats)
        self.bins = check_whole("weiper bins", bins, least=2)
        for name, value in (("delta", delta), ("lambda_1", lambda_1), ("lambda_2", lambda_2)):
            if not 0 <= value < float("inf"):
                raise GradbenchError(f"weiper {name}={value}: a number from 0")
        self.delta, self.weights = delta, (1.0, lambda_1, lambda_2)
        widths = {"smooth": smooth, "smooth_perturbed": smooth_perturbed}
        self.widths = tuple(check_whole(f"weiper {name}", n) for name, n in widths.items())
        self.weight = self.bias = self.ranges = self.means = torch.empty(0)

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> WeiPer:
        """Draw the copies (r classes, D); find the ranges and the mean densities (2, bins)."""
        weight, bias = (bank[name].double() for name in HEAD)
        draw = torch.Generator().manual_seed(seed)
        noise = torch.randn(self.repeats, *weight.shape, generator=draw, dtype=torch.float64)
        lengths = self.delta * weight.norm(dim=1, keepdim=True)
        self.weight = (weight + lengths * functional.normalize(noise, dim=2)).flatten(0, 1)
        self.bias = bias.repeat(self.repeats)
        ends = [[part.aminmax() for part in parts] for parts in self._parts(bank)]
        self.ranges = torch.stack(
            [
                torch.stack([torch.stack(low).min(), torch.stack(high).max()])
                for low, high in (zip(*of_part) for of_part in zip(*ends))
            ]
        )
        sums = sum(
            torch.stack([one.sum(0) for one in self._densities(parts)])
            for parts in self._parts(bank)
        )
        self.means = sums / len(bank["features"])
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) weighted divergences less the weighted probability."""
        scores = []
        for parts in self._parts(outputs):
            shares = zip(self.means, self._densities(parts), self.widths, EPSILONS)
            terms = [divergence(*of_part) for of_part in shares]
            logits = parts[1].unflatten(1, (self.repeats, -1))
            terms.append(-logits.softmax(2).amax(2).mean(1))
            scores.append(sum(weight * term for weight, term in zip(self.weights, terms)))
        return torch.cat(scores)

    def _parts(self, outputs: Outputs):
        """Yield the features and the projections of some images at a time."""
        for features in outputs["features"].split(max(BLOCK // len(self.weight), 1)):
            features = features.double()
            yield features, features @ self.weight.T + self.bias

    def _densities(self, parts: tuple[Tensor, Tensor]) -> list[Tensor]:
        return [densities(part, *ends, self.bins) for part, ends in zip(parts, self.ranges)]
