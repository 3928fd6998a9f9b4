"""Logistic regression on a few scores of layers, as Mahalanobis and LID are combined."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from gradbench.methods.base import Fitted
from gradbench.methods.gradient_norms import deviation

STRENGTHS = np.logspace(-4, 4, 10)
"""Inverse strengths of the penalty, scikit-learn's and the published codes' own."""
TRIAL = 1.0
"""Inverse strength while other settings are tried."""


class Regression(Fitted):
    """Logistic regression of abnormal against normal, its penalty chosen by cross-validation.

    As in the public code of the Mahalanobis detector (`LogisticRegressionCV` of scikit-learn).
    Differs from the paper: scores are standardised first, since the penalty would else weigh
    layers by their scale; the penalty is that of the best likelihood instead of the best accuracy;
    the folds of the cross-validation are shuffled.
    """

    learned = ("mean", "std", "weight", "bias")

    def __init__(self):
        self.mean = self.std = self.weight = self.bias = torch.empty(0)

    def fit(
        self, scores: Tensor, abnormal: Tensor, seed: int = 0, strength: float | None = None
    ) -> Regression:
        """Fit to (N, L) scores of layers with (N,) bool; `seed` is of the cross-validation's folds.

        With a `strength`, the inverse one of the penalty, there is no cross-validation, which takes
        fifty times as long: for trials of other settings.
        """
        scores = scores.double()
        self.mean = scores.mean(0)
        self.std = deviation(scores, self.mean)
        settings = {"solver": "newton-cholesky", "max_iter": 200}
        if strength is None:
            folds = max(2, min(5, int(abnormal.sum()), int((~abnormal).sum())))
            model = LogisticRegressionCV(
                Cs=STRENGTHS,
                l1_ratios=(0.0,),
                scoring="neg_log_loss",
                cv=StratifiedKFold(folds, shuffle=True, random_state=seed),
                use_legacy_attributes=False,
                **settings,
            )
        else:
            model = LogisticRegression(C=strength, **settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of steps cut short where the sides part perfectly
            model.fit(((scores - self.mean) / self.std).numpy(), abnormal.numpy())
        self.weight = torch.from_numpy(np.array(model.coef_[0], dtype=np.float64))
        self.bias = torch.tensor(float(model.intercept_[0]), dtype=torch.float64)
        return self

    def __call__(self, scores: Tensor) -> Tensor:
        """Return the (N,) logits of (N, L) scores."""
        return ((scores.double() - self.mean) / self.std) @ self.weight + self.bias
