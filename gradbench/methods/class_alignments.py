"""Detectors on the direction of a gradient: its products with the mean gradients of the classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradbench.errors import unknown
from gradbench.methods.banks import check_neighbours, kth_distance
from gradbench.methods.base import Detector, Info, Outputs, Samples
from gradbench.methods.gaussians import Gaussians
from gradbench.methods.gradpca import GradPCA
from gradbench.methods.tuning import check_whole

PARTS = ("whole", "tensors")
SMALL = 1e-6
"""Share of the largest eigenvalue below which a direction of the means is rounding."""
LOW_DIMENSIONAL = Info(
    "Low-Dimensional Gradient Helps Out-of-Distribution Detection",
    "TPAMI 2024",
    "https://arxiv.org/abs/2310.17163",
    "https://github.com/snowien/Low-dimensional-Gradient-Helps-OOD-Detection",
)


class ClassAlignment(Detector):
    """A detector on g, the gradient of the largest logit, and m_c, its means over the classes.

    With a_c = <g, m_c> and G_cd = <m_c, m_d>, summed over the chosen parameter tensors,
    z = U' a / |g| are the coordinates of g/|g| in the span of the means: U U' = G^+, |z| <= 1.
    In float64.

    Args:
        tensors: the choice of `class_alignments/<tensors>`: last_stage or all.
    """

    supervision = "none"
    learned = ("basis",)

    def __init__(self, tensors: str = "last_stage"):
        self.source = f"class_alignments/{tensors}"
        self.gram = f"learned/{self.source}/gram"
        self.reads: Sequence[str] = (self.source,)
        self.bank_reads = ("labels", self.gram)
        self.basis = torch.empty(0)

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> ClassAlignment:
        """Find U (1, C, r), padded with zeros, from the products of the means."""
        self.basis = basis_of(bank[self.gram].double().sum(0, keepdim=True))
        return self

    def coordinates(self, outputs: Outputs) -> Tensor:
        """Return z, (N, r)."""
        norms, products = split(outputs[self.source])
        return _unit(products.sum(2) @ self.basis[0], norms.sum(1))


class GradPCASpan(ClassAlignment):
    """GradPCA (Seleznova et al. 2026) of whole tensors: s = -sqrt(a' G^+ a) / |g| = -|z|.

    The length of the gradient of the largest logit within the span of the classes' mean
    gradients on f's training images, over its whole length; for the symbols see `ClassAlignment`.

    Differs from the paper: the span is that of the means themselves, all of it, where the authors'
    code centres them and keeps the directions that hold 0.99 of their trace (`GradPCA` here).

    Args:
        tensors: last_stage or all, see `class_alignments`.
    """

    info = GradPCA.info

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) minus the share of the length that lies in the span, -1 to 0."""
        return -self.coordinates(outputs).norm(dim=1)


class ClassCosine(ClassAlignment):
    """Cosine with the predicted class: s = -<g, m_y> / (|g| |m_y|) for the largest logit's class y.

    A single direction of GradPCA's (Seleznova et al. 2026); for the symbols see `ClassAlignment`.

    Differs from the paper: one class instead of the span of all of them; the choice is ours.

    Args:
        tensors: last_stage or all, see `class_alignments`.
    """

    info = Info(
        GradPCA.info.title, GradPCA.info.venue, GradPCA.info.url, GradPCA.info.code, own=True
    )
    learned = ("lengths",)

    def __init__(self, tensors: str = "last_stage"):
        super().__init__(tensors)
        self.reads = (self.source, "logits")
        self.lengths = torch.empty(0)

    def fit(self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0) -> ClassCosine:
        """Take the lengths (C,) of the means."""
        self.lengths = bank[self.gram].double().sum(0).diagonal().clamp(min=0).sqrt()
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) minus the cosines, -1 to 1."""
        norms, products = split(outputs[self.source])
        predicted = outputs["logits"].argmax(1)
        products = products.sum(2).gather(1, predicted[:, None])
        return -_unit(products, norms.sum(1) * self.lengths[predicted].square())[:, 0]


class ClassAlignmentsKNN(ClassAlignment):
    """Low-dimensional gradient (Wu et al. 2024) with nearest neighbours: s = |z - z_(k)|.

    z are the coordinates of the unit gradient in the span of the classes' means, see
    `ClassAlignment`; z_(k) is the k-th nearest among those of the hold-out.

    Differs from the paper: its subspace of average gradients has those of log sum exp of the
    logits, centred and divided by each parameter's deviation, and takes the products as they are.
    Here the gradient is divided by its length, so that what lies outside the span counts, and the
    products are made orthonormal. Neighbours are clean images that f was not trained on, as the
    means are already of its training images.

    Args:
        tensors: last_stage or all, see `class_alignments`.
        k: which neighbour; fewer than the hold-out has images of a class, or the neighbours are
            of other classes.

    Raises:
        GradbenchError: for a setting out of range, or a hold-out of fewer than k images.
    """

    info = LOW_DIMENSIONAL
    learned = ("basis", "kept")

    def __init__(self, tensors: str = "last_stage", k: int = 50):
        super().__init__(tensors)
        self.k = check_whole("class_alignments_knn k", k)
        self.hold_out_reads = (self.source,)
        self.kept = torch.empty(0)

    def fit(
        self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0
    ) -> ClassAlignmentsKNN:
        """Keep the coordinates of the hold-out."""
        super().fit(bank, fit, choose, seed)
        self.kept = self.coordinates(fit.clean)
        check_neighbours("class_alignments_knn", self.k, self.kept)
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) distances, in [0, 2]."""
        return kth_distance(self.coordinates(outputs), self.kept, self.k)


class ClassAlignmentsMahalanobis(ClassAlignment):
    """Low-dimensional gradient (Wu et al. 2024) with Gaussians: half a squared distance.

    One Gaussian a class with one covariance, of the hold-out and its labels (Lee et al. 2018), on
    z (see `ClassAlignment`); or of all images together on |z_t|, t the single parameter tensors,
    where z_t has the a, G and |g| of tensor t alone.

    Differs from the paper: divided and fitted as `ClassAlignmentsKNN`; tensors one by one are ours.

    Args:
        tensors: last_stage or all, see `class_alignments`.
        of: `whole` for z, `tensors` for the |z_t|.

    Raises:
        GradbenchError: for an unknown choice.
    """

    info = LOW_DIMENSIONAL
    learned = ("basis", "gaussians")

    def __init__(self, tensors: str = "last_stage", of: str = "whole"):
        super().__init__(tensors)
        if of not in PARTS:
            raise unknown("choice `of`", str(of), PARTS)
        self.of = of
        self.hold_out_reads = (self.source, "labels")
        self.gaussians = Gaussians(torch.empty(0), torch.empty(0))

    def fit(
        self, bank: Outputs, fit: Samples, choose: Samples, seed: int = 0
    ) -> ClassAlignmentsMahalanobis:
        """Fit the Gaussians to the hold-out."""
        grams = bank[self.gram].double()
        self.basis = basis_of(grams if self.of == "tensors" else grams.sum(0, keepdim=True))
        clean = fit.clean
        labels = clean["labels"] * (self.of == "whole")
        self.gaussians = Gaussians.fit(self._values(clean), labels)
        return self

    def score(self, outputs: Outputs) -> Tensor:
        """Return (N,) half squared distances."""
        return self.gaussians.nearest(self._values(outputs))

    def _values(self, outputs: Outputs) -> Tensor:
        if self.of == "whole":
            return self.coordinates(outputs)
        norms, products = split(outputs[self.source])
        inside = torch.einsum("ncd,dcr->ndr", products, self.basis).norm(dim=2)
        return _unit(inside, norms)


def split(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared norms (N, d) and products (N, C, d) of `class_alignments`, in float64."""
    values = values.double()
    return values[:, 0], values[:, 1:]


def basis_of(grams: Tensor) -> Tensor:
    """Return U (n, C, C), U U' = G^+, of Gram matrices (n, C, C), zeros where they have no rank."""
    values, vectors = torch.linalg.eigh(grams)
    kept = values > SMALL * values[:, -1:].clamp(min=0)
    return vectors * torch.where(kept, values, torch.inf).rsqrt()[:, None]


def _unit(values: Tensor, squares: Tensor) -> Tensor:
    """Divide (N, ...) by the roots of (N,) or (N, d); 0 where those are."""
    squares = squares if squares.ndim == values.ndim else squares[:, None]
    return torch.where(squares > 0, values / squares.sqrt(), 0.0)
