"""The one-class and the fused score with activations in place of gradients, as controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gradbench.methods.base import Outputs, Samples, layers_of
from gradbench.methods.gradient_oneclass import GradientOneClass
from gradbench.methods.mahalanobis import MahalanobisV
from gradbench.methods.oneclass_models import Mahalanobis


class ActivationOneClass(GradientOneClass):
    """How far an image's activations lie from those of clean images of its predicted class.

    `gradient_oneclass` with the spatial means of all channels of all feature layers in place of
    gradient norms: values less the mean of the predicted class, Mahalanobis distance with one
    shrunk covariance, fitted on the hold-out; no challenge image is seen. One forward pass. It
    shows whether the findings of `gradient_oneclass` need gradients.

    Differs from the paper (Lee et al. 2018, equations 1 and 2): all layers in one covariance,
    predicted in place of true and nearest classes, the hold-out in place of training images,
    shrinkage.
    """

    info = replace(MahalanobisV.info, own=True)
    hold_out_reads = ("layer_means", "logits")

    def __init__(self):
        self.layers: dict[str, int] = {}
        self.means = torch.empty(0)
        self.model = Mahalanobis()

    @property
    def reads(self) -> Sequence[str]:
        """The logits and the feature layers; once fitted, those that are scored."""
        return (*(self.layers or ("layer_means",)), "logits")

    def fit(
        self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0
    ) -> ActivationOneClass:
        """Fit class means and covariance on the normal images."""
        layers = fit.outputs.items()
        self.layers = {n: v.shape[1] for n, v in layers if n.startswith("layer_means/")}
        return super().fit(bank, fit, choose, seed)

    def state(self) -> dict[str, Tensor]:
        """Return the class means of every layer, in order, and the precision."""
        if not self.layers:
            return {}
        parts = zip(self.layers, self.means.split(list(self.layers.values()), dim=1))
        return {f"{i}/means/{n}": t for i, (n, t) in enumerate(parts)} | self.model.state()

    def load(self, state: Mapping[str, Tensor]) -> ActivationOneClass:
        """Take over class means and precision."""
        means = layers_of(state, "means/")
        self.layers = {name: part.shape[1] for name, part in means.items()}
        self.means = torch.cat(list(means.values()), dim=1)
        self.model.load(state)
        return self

    def _values(self, outputs: Outputs) -> Tensor:
        return torch.cat([outputs[name] for name in self.layers], dim=1)
