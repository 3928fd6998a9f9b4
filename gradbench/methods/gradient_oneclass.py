"""One-class detectors on the gradient profile, fitted on clean images alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gradbench.errors import GradbenchError, unknown
from gradbench.methods.base import Detector, Outputs, Samples
from gradbench.methods.gradient import OWN
from gradbench.methods.gradient_norms import class_means, class_profile, log_norms
from gradbench.methods.oneclass_models import Forest, Mahalanobis, Mixture, Neighbours

MODELS = {
    "mahalanobis": Mahalanobis,
    "knn": Neighbours,
    "gmm": Mixture,
    "forest": Forest,
}


class GradientOneClass(Detector):
    """How far an image's gradient profile lies from those of clean images of its predicted class.

    The profile is log(||dJ/dtheta_t||^2 + 1e-12) of all parameter tensors less the mean of the
    predicted class (Lee and AlRegib 2020 for the norms). Means and model are fitted on the
    hold-out: clean images that f was not trained on. No challenge image is seen.

    Nearest relative: Dauncey, Holmes, Williams and Falck, "Approximations to the Fisher Information
    Metric of Deep Generative Models for Out-Of-Distribution Detection" (TMLR 2024, arXiv
    2403.01485), a joint density of the layers' gradient norms, there of a generative model's
    likelihood.

    Differs from the paper: there H learns from challenge images; the one-class fit is ours.

    Args:
        model: `mahalanobis` (one covariance, with shrinkage; the default), `knn`, `gmm` or
            `forest`, see `oneclass_models`.
        label, loss: of the gradients read.
        settings: of the model.
        source: another output with a number from 0 for every tensor, in place of the squared norms
            of that label and loss.

    Raises:
        GradbenchError: for an unknown model, a setting out of range, or a source of other values.
    """

    info = OWN
    supervision = "none"
    learned = ("means", "model")

    def __init__(
        self,
        model: str = "mahalanobis",
        label: str = "ones",
        loss: str = "bce",
        settings: Mapping | None = None,
        source: str | None = None,
    ):
        if model not in MODELS:
            raise unknown("model", str(model), MODELS)
        self.source = source or f"squared_norms/{label}/{loss}"
        self.reads = self.hold_out_reads = (self.source, "logits")
        self.means = torch.empty(0)
        self.model = MODELS[model](**(settings or {}))

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> GradientOneClass:
        """Fit class means and model on the normal images."""
        clean = fit.clean
        self.means = class_means(self._values(clean), clean["logits"])
        self.model.fit(self._profile(clean), seed)
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) distances from the clean profiles, or minus their log density."""
        return self.model.distance(self._profile(outputs))

    def _values(self, outputs: Outputs) -> Tensor:
        values = outputs[self.source]
        if values.ndim != 2 or (values < 0).any():
            raise GradbenchError(
                f"gradient_oneclass source={self.source}: an output with a number from 0 for every "
                "parameter tensor is due, such as squared_norms/ones/bce or fisher_traces"
            )
        return log_norms(values)

    def _profile(self, outputs: Outputs) -> Tensor:
        return class_profile(self._values(outputs), outputs["logits"], self.means)
