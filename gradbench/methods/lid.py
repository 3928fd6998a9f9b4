"""Local intrinsic dimensionality of the features, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gradbench.errors import GradbenchError
from gradbench.methods.base import Detector, Info, Outputs, Samples, layers_of
from gradbench.methods.regression import TRIAL, Regression
from gradbench.methods.tuning import check_whole, rank_auroc

CEILING = 1000.0
"""Largest estimate; k neighbours at one and the same distance would have an infinite one."""
_NEAR = 1e-12
"""Ratio of distances below which a neighbour is as good as equal to the image."""


def sorted_distances(features: Tensor, reference: Tensor) -> Tensor:
    """Return the Euclidean distances of (N, D) features to (R, D) reference, ascending, (N, R)."""
    features, reference = features.double(), reference.double()
    exact = "donot_use_mm_for_euclid_dist"  # products lose the digits of small distances
    return torch.cdist(features, reference, compute_mode=exact).sort(1).values


def lid(distances: Tensor, k: int) -> Tensor:
    """Return the maximum-likelihood estimate of the dimension around each image, (N,).

    LID = -k / sum_{i=1..k} log(r_i / r_k), r_i the distance to the i-th neighbour (Ma et al. 2018,
    equation 4). A neighbour at distance 0 counts as very near, an image equal to all its k
    neighbours has 0, and estimates end at 1,000. Distances are (N, R), ascending, with R >= k.
    """
    near = distances[:, :k].double()
    furthest = near[:, -1:]
    ratios = (near / furthest.clamp_min(torch.finfo(torch.float64).tiny)).clamp_min(_NEAR)
    estimate = k / -ratios.log().sum(1).clamp_max(-k / CEILING)
    return torch.where(furthest[:, 0] > 0, estimate, 0.0)


class Lid(Detector):
    """Logistic regression on the local intrinsic dimensionality of every feature layer.

    Distances are those to a fixed minibatch of clean images, the smallest left out (for an image of
    the minibatch itself that would be its own; the published codes leave it out for all). k is the
    one with the best AUROC on *choose*.
    Differs from the paper: spatial means of the feature layers instead of all activations, k from
    the grid of the public code of the Mahalanobis detector; the minibatch is drawn from the
    hold-out, so that no image that is measured, nor its twin, is in it, and f was trained on none
    of it; for the regression see `Regression`.

    Args:
        neighbours: values of k to choose from, at least 2.
        minibatch: clean images that distances go to; k is at most one less.

    Raises:
        GradbenchError: for a setting out of range.
    """

    info = Info(
        "Characterizing Adversarial Subspaces Using Local Intrinsic Dimensionality",
        "ICLR 2018",
        "https://arxiv.org/abs/1801.02613",
        "https://github.com/xingjunm/lid_adversarial_subspace_detection",
    )
    supervision = "training"
    hold_out_reads = ("layer_means",)
    half = 0.0
    learned = ("regression", "k")

    def __init__(
        self,
        neighbours: Sequence[int] = (10, 20, 30, 40, 50, 60, 70, 80, 90),
        minibatch: int = 100,
    ):
        self.minibatch = check_whole("minibatch", minibatch, least=20)
        self.neighbours = tuple(neighbours)
        if not self.neighbours or any(type(k) is not int or k < 2 for k in self.neighbours):
            raise GradbenchError(f"lid neighbours={list(neighbours)}: whole numbers, at least 2")
        self.k: int | None = None
        self.reference: dict[str, Tensor] = {}
        self.regression = Regression()

    @property
    def reads(self) -> Sequence[str]:
        """The feature layers."""
        return tuple(self.reference) or ("layer_means",)

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> Lid:
        """Draw the minibatch, choose k, fit the regression to *fit*."""
        clean = {n.removeprefix("hold_out/"): v for n, v in bank.items() if "layer_means/" in n}
        size = len(next(iter(clean.values())))
        draw = torch.Generator().manual_seed(seed)
        rows = torch.randperm(size, generator=draw)[: self.minibatch].sort().values
        self.reference = {name: values[rows].clone() for name, values in clean.items()}
        fitted, watched = (self._distances(part.outputs) for part in (fit, choose))
        aurocs = {}
        for k in sorted({min(k, len(rows) - 1) for k in self.neighbours}):
            trial = Regression().fit(_estimates(fitted, k), fit.abnormal, strength=TRIAL)
            scores = trial(_estimates(watched, k)).numpy()
            aurocs[k] = rank_auroc(scores, choose.abnormal.numpy())
        self.k = max(aurocs, key=aurocs.get)  # of equals the smallest
        self.regression.fit(_estimates(fitted, self.k), fit.abnormal, seed)
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) logits of the regression."""
        return self.regression(_estimates(self._distances(outputs), self.k))

    def state(self) -> dict[str, Tensor]:
        """Return minibatch, k and regression."""
        minibatch = {f"{i}/{name}": t for i, (name, t) in enumerate(self.reference.items())}
        return minibatch | super().state()

    def load(self, state: Mapping[str, Tensor]) -> Lid:
        """Take over minibatch, k and regression."""
        self.reference = layers_of(state)
        return super().load(state)

    def _distances(self, outputs: Outputs) -> list[Tensor]:
        """Return the distances in every layer, without the smallest."""
        return [
            sorted_distances(outputs[name], reference)[:, 1:]
            for name, reference in self.reference.items()
        ]


def _estimates(distances: Sequence[Tensor], k: int) -> Tensor:
    """Return (N, layers)."""
    return torch.stack([lid(of_layer, k) for of_layer in distances], dim=1)
