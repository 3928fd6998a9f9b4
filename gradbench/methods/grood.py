"""Gradients with respect to a prototype of what f does not know."""

from __future__ import annotations

import torch
from torch import Tensor

from gradbench.errors import GradbenchError, unknown
from gradbench.methods.banks import kth_distance
from gradbench.methods.base import Detector, Info, Outputs, Samples

PROTOTYPES = ("mixed", "mean")
FAR = 1e12
"""Lengths of known gradients, beyond which the distance to the nearest is a gradient's own."""


class GROOD(Detector):
    """GROOD (ElAraby et al. 2025): s = |g - g_(1)|, the distance to the nearest known gradient.

    Class prototypes are the mean features of f's training images by their true labels; one more
    prototype o stands for what f does not know. The loss is the cross entropy of the softmax of
    minus the distances of the features h to all prototypes, against the predicted class, and g its
    gradient with respect to o: g = q (h - o) / |h - o|, q the probability of o, from a forward
    pass. Known are those of the training images that f classifies rightly. In float64.

    Differs from the paper: o is the mean of training features mixed with the prototype of their
    second likeliest class, half and half, where the authors mix the outputs of a middle layer
    and run the layers behind it; their code can also take noise images, or real abnormal ones of
    a validation set. The nearest gradient is found exactly, theirs by an approximate index.

    Args:
        prototype: mixed, or mean: o is the mean of the class prototypes, as the authors' code can
            have it too.

    Raises:
        GradbenchError: for another prototype, or if f classifies no training image rightly.
    """

    info = Info(
        "GROOD: Gradient-Aware Out-of-Distribution Detection",
        "TMLR 2025",
        "https://arxiv.org/abs/2312.14427",
        "https://github.com/mostafaelaraby/Gradient-Aware-OOD-Detection",
    )
    supervision = "none"
    reads = ("features",)
    bank_reads = ("features", "logits", "labels")
    version = 2
    learned = ("prototypes", "gradients", "scale")

    def __init__(self, prototype: str = "mixed"):
        if prototype not in PROTOTYPES:
            raise unknown("prototype", str(prototype), PROTOTYPES)
        self.prototype = prototype
        self.prototypes = self.gradients = self.scale = torch.empty(0)

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> GROOD:
        """Find the prototypes (classes + 1, D), the last that of the unknown, and the gradients."""
        features, labels, logits = bank["features"].double(), bank["labels"], bank["logits"]
        right = logits.argmax(1) == labels
        if not right.any():
            raise GradbenchError("grood: f classifies none of its training images rightly")
        sums = features.new_zeros(logits.shape[1], features.shape[1])
        counts = labels.bincount(minlength=len(sums))
        present = counts > 0  # a class without images has no prototype
        means = sums.index_add_(0, labels, features) / counts.clamp(min=1)[:, None]
        if self.prototype == "mixed" and present.sum() > 1:
            second = logits[:, present].topk(2, dim=1).indices[:, 1]
            other = (features.mean(0) + means[present][second].mean(0)) / 2
        else:
            other = means[present].mean(0)
        self.prototypes = torch.cat([means[present], other[None]])
        known = self._gradients(features[right])
        # q may be smaller than float32 holds; a power of two changes no digit
        self.scale = known.abs().max().clamp(min=1e-300).log2().floor().exp2()
        self.gradients = (known / self.scale).float()
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) distances to the nearest gradient."""
        gradients = self._gradients(outputs["features"].double())
        lengths = gradients.norm(dim=1)
        far = lengths > FAR * self.scale
        within = gradients.masked_fill(far[:, None], 0) / self.scale
        return torch.where(far, lengths, self.scale * kth_distance(within, self.gradients, 1))

    def _gradients(self, features: Tensor) -> Tensor:
        """Return the gradients (N, D) with respect to the prototype of the unknown."""
        away = features - self.prototypes[-1]
        distances = torch.cdist(
            features, self.prototypes, compute_mode="donot_use_mm_for_euclid_dist"
        )
        share = (-distances).softmax(1)[:, -1:]
        return share * away / distances[:, -1:].clamp(min=1e-12)
