"""One-class detectors on the gradient profile, fitted on clean images alone."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from gradbench.errors import unknown
from gradbench.methods.base import Detector, Outputs, Samples, part_of
from gradbench.methods.gradient import OWN
from gradbench.methods.gradient_norms import ClassProfile, log_norms
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

    Differs from the paper: there H learns from challenge images; the one-class fit is ours.

    Args:
        model: `mahalanobis` (one covariance, with shrinkage; the default), `knn`, `gmm` or
            `forest`, see `oneclass_models`.
        label: confounding label of the gradients read.
        loss: loss of the gradients read.
        settings: of the model.

    Raises:
        GradbenchError: for an unknown model or a setting out of range.
    """

    info = OWN
    supervision = "none"

    def __init__(
        self,
        model: str = "mahalanobis",
        label: str = "ones",
        loss: str = "bce",
        settings: Mapping | None = None,
    ):
        if model not in MODELS:
            raise unknown("model", str(model), MODELS)
        self.source = f"squared_norms/{label}/{loss}"
        self.reads = self.hold_out_reads = (self.source, "logits")
        self.profile = ClassProfile()
        self.model = MODELS[model](**(settings or {}))

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> GradientOneClass:
        """Fit class means and model on the normal images."""
        norms, logits = (fit.outputs[name][~fit.abnormal] for name in self.reads)
        logs = log_norms(norms)
        self.model.fit(self.profile.fit(logs, logits)(logs, logits), seed)
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) distances from the clean profiles, or minus their log density."""
        logs = log_norms(outputs[self.source])
        return self.model.distance(self.profile(logs, outputs["logits"]))

    def state(self) -> dict[str, Tensor]:
        """Return class means and model."""
        if not len(self.profile.means):
            return {}
        return self.profile.state() | {f"model.{n}": t for n, t in self.model.state().items()}

    def load(self, state: Mapping[str, Tensor]) -> GradientOneClass:
        """Take over class means and model."""
        self.profile.load(state)
        self.model.load(part_of(state, "model."))
        return self
