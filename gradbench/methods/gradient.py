"""The papers' detector H, a two-layer perceptron on the squared gradient norms of f."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gradbench.errors import GradbenchError
from gradbench.methods.base import Detector, Info, Outputs, Samples, part_of
from gradbench.methods.gradient_norms import Normaliser
from gradbench.methods.tuning import check_whole, rank_auroc

PAPER = Info(
    "Gradients as a Measure of Uncertainty in Neural Networks",
    "ICIP 2020",
    "https://arxiv.org/abs/2008.08030",
)
OWN = replace(PAPER, own=True)
"""Of detectors that read the paper's gradients and are not in it."""


@dataclass(eq=False)
class Gradient(Detector):
    """H of Lee and AlRegib (2020): logit of a perceptron on all layers' squared gradient norms.

    v -> log(v + 1e-12) -> standardised -> Linear(d, hidden) -> ReLU -> Linear(hidden, 1), fitted
    with binary cross entropy, both classes weighted alike, the epoch with the best AUROC on
    *choose* kept.

    Differs from the paper: width, activation, normalisation, optimiser and epochs are not
    published; these are ours (two fully connected layers are the paper's).

    Args:
        label, loss: of the gradients read.
        hidden: units of the hidden layer.
        normalisation: `log_standard`, `standard` or `none`.
        epochs, batch: passes over the *fit* part, and samples in a step.
        lr, weight_decay: of Adam.

    Raises:
        GradbenchError: for a setting out of range.
    """

    label: str = "ones"
    loss: str = "bce"
    hidden: int = 64
    normalisation: str = "log_standard"
    epochs: int = 50
    batch: int = 256
    lr: float = 1e-3
    weight_decay: float = 1e-4

    info = PAPER
    supervision = "training"
    half = 0.0

    def __post_init__(self):
        for setting in ("hidden", "epochs", "batch"):
            check_whole(f"gradient {setting}", getattr(self, setting))
        if not self.lr > 0 or not self.weight_decay >= 0:
            raise GradbenchError(
                f"gradient lr={self.lr} weight_decay={self.weight_decay}: above 0, from 0"
            )
        self.source = f"squared_norms/{self.label}/{self.loss}"
        self.reads = (self.source,)
        self.normaliser = Normaliser(self.normalisation)
        self.head: nn.Sequential | None = None

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> Gradient:
        """Fit H on *fit* and keep the epoch with the best AUROC on *choose*."""
        features = self.normaliser.fit(fit.outputs[self.source])(fit.outputs[self.source])
        watched = self.normaliser(choose.outputs[self.source])
        target = fit.abnormal.float()
        share = target.mean()
        weights = torch.where(fit.abnormal, 0.5 / share, 0.5 / (1 - share))
        draw = torch.Generator().manual_seed(seed)
        head = self._perceptron(features.shape[1], draw)
        optimiser = torch.optim.Adam(
            head.parameters(), lr=self.lr, weight_decay=self.weight_decay, foreach=True
        )
        best, kept = -1.0, copy.deepcopy(head.state_dict())
        for _ in range(self.epochs):
            for rows in torch.randperm(len(features), generator=draw).split(self.batch):
                loss = nn.functional.binary_cross_entropy_with_logits(
                    head(features[rows]).squeeze(1), target[rows], weights[rows]
                )
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            with torch.inference_mode():
                auroc = rank_auroc(head(watched).squeeze(1).numpy(), choose.abnormal.numpy())
            if auroc > best:
                best, kept = auroc, copy.deepcopy(head.state_dict())
        if best < 0:
            raise GradbenchError(
                f"gradient: H gives no finite scores in any epoch (lr={self.lr}, normalisation="
                f"{self.normaliser.how}); try a smaller lr or normalisation=log_standard"
            )
        head.load_state_dict(kept)
        self.head = head
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) logits of H."""
        with torch.inference_mode():
            logits = self.head(self.normaliser(outputs[self.source])).squeeze(1)
        return logits.double()

    def state(self) -> dict[str, Tensor]:
        """Return normalisation and weights of H."""
        if self.head is None:
            return {}
        return self.normaliser.state() | {f"head.{n}": t for n, t in self.head.state_dict().items()}

    def load(self, state: Mapping[str, Tensor]) -> Gradient:
        """Take over normalisation and weights of H."""
        self.normaliser.load(state)
        self.head = self._perceptron(len(state["mean"]), torch.Generator())
        self.head.load_state_dict(part_of(state, "head."))
        return self

    def _perceptron(self, features: int, draw: torch.Generator) -> nn.Sequential:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (), generator=draw)))
            return nn.Sequential(
                nn.Linear(features, self.hidden), nn.ReLU(), nn.Linear(self.hidden, 1)
            )


SYNTHETIC = {"gaussian_noise": 3, "gaussian_blur": 3, "fgsm": None}


@dataclass(eq=False)
class GradientSynthetic(Gradient):
    """H of `gradient`, fitted on noise, blur and FGSM made from the hold-out, used on all others.

    Half of the images that the challenges are made from fit H, the other half chooses its epoch,
    each with what was made from it. No image of the measured challenge is seen, but where that is
    of a family fitted on, or of a relative, the row says so (`gradbench.run.synthetic.relation`).

    Differs from the paper: there H is fitted on the challenge itself.

    Takes the settings of `gradient`, too.

    Args:
        challenges: level, or null where there is none, by name of the challenge's file.
        images: hold-out images to make them from, at most; class-stratified.

    Raises:
        GradbenchError: for a setting out of range.
    """

    challenges: Mapping[str, int | None] | None = None
    images: int = 2000

    info = OWN
    supervision = "synthetic"

    def __post_init__(self):
        super().__post_init__()
        self.synthetic = dict(SYNTHETIC if self.challenges is None else self.challenges)
        if not self.synthetic or type(self.images) is not int or self.images < 10:
            raise GradbenchError(
                f"gradient_synthetic challenges={self.synthetic} images={self.images}: name at "
                "least one challenge and 10 images"
            )
        self.synthetic_images = self.images
