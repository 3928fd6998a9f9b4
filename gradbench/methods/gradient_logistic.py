"""Control of H: does a linear model on the same features do as well?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from gradbench.errors import GradbenchError
from gradbench.methods.base import Detector, Outputs, Samples
from gradbench.methods.gradient import OWN
from gradbench.methods.gradient_norms import Normaliser
from gradbench.methods.tuning import rank_auroc


class GradientLogistic(Detector):
    """Logistic regression on all layers' squared gradient norms, a control for `gradient`.

    The inverse strength C of the L2 penalty is the one of the grid with the best AUROC on
    *choose*; classes are weighted alike.

    Args:
        label, loss: of the gradients read.
        normalisation: `log_standard`, `standard` or `none`.
        grid: values of C to choose from.

    Raises:
        GradbenchError: for another normalisation, or a grid that is empty or not positive.
    """

    info = OWN
    supervision = "training"
    half = 0.0
    learned = ("weight", "bias")

    def __init__(
        self,
        label: str = "ones",
        loss: str = "bce",
        normalisation: str = "log_standard",
        grid: tuple[float, ...] = (0.01, 0.1, 1.0),
    ):
        self.source = f"squared_norms/{label}/{loss}"
        self.reads = (self.source,)
        self.normaliser = Normaliser(normalisation)
        self.grid = tuple(grid)
        if not self.grid or not all(strength > 0 for strength in self.grid):
            raise GradbenchError(f"grid={list(grid)}: list one or more values above 0")
        self.weight = self.bias = torch.empty(0)

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> GradientLogistic:
        """Fit on *fit* for each C and keep the best on *choose*."""
        features = self.normaliser.fit(fit.outputs[self.source])(fit.outputs[self.source]).numpy()
        watched = self.normaliser(choose.outputs[self.source]).numpy()
        best = -1.0
        for strength in self.grid:
            model = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
            model.fit(features, fit.abnormal.numpy())
            auroc = rank_auroc(model.decision_function(watched), choose.abnormal.numpy())
            if auroc > best:
                best = auroc
                self.weight = torch.from_numpy(np.array(model.coef_[0], dtype=np.float64))
                self.bias = torch.tensor(float(model.intercept_[0]), dtype=torch.float64)
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) logits of the regression."""
        return self.normaliser(outputs[self.source]).double() @ self.weight + self.bias

    def state(self) -> dict[str, Tensor]:
        """Return normalisation and coefficients."""
        return self.normaliser.state() | super().state()

    def load(self, state: Mapping[str, Tensor]) -> GradientLogistic:
        """Take over normalisation and coefficients."""
        self.normaliser.load(state)
        return super().load(state)
