"""What rounding does to squared norms: errors, and what becomes of the order of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from torch import Tensor

from gradbench.bench.agreement import FLOOR, relative

LEVELS = {"median": 0.5, "p90": 0.9, "p99": 0.99, "largest": 1.0}
OFF = 0.1
"""An image counts as off if any tensor's relative error is larger."""


@dataclass(frozen=True)
class Rounding:
    """Relative errors of squared norms, and rank correlations with the exact ones.

    Args:
        values: quantiles `LEVELS` of the errors of all (image, tensor) values.
        sums: the same of the sum over tensors, one value per image.
        rank: Spearman correlation over images of that sum; None where it is constant.
        least_rank: the smallest such correlation of a single tensor.
        least_tensor: which tensor that is.
        off: share of images with any tensor off by more than `OFF`.
        not_finite: values that are NaN or infinite; their errors count as infinite.
    """

    values: dict[str, float]
    sums: dict[str, float]
    rank: float | None
    least_rank: float | None
    least_tensor: str | None
    off: float
    not_finite: int


def rounding(norms: Tensor, exact: Tensor, names: Sequence[str]) -> Rounding:
    """Compare squared norms with exact ones.

    Differences of norms below a millionth of their image's largest are taken relative to that
    millionth (`agreement.relative`), and a tensor whose norms are all as small has no rank.

    Args:
        norms: squared norms (B, d).
        exact: the same in float64.
        names: of the d tensors.
    """
    norms, exact = norms.double().cpu(), exact.double().cpu()
    errors = relative(norms, exact)
    sums, exact_sums = norms.sum(1, keepdim=True), exact.sum(1, keepdim=True)
    weighty = (exact > FLOOR * exact.amax(1, keepdim=True)).any(0).tolist()
    ranks = {
        name: rank
        for i, name in enumerate(names)
        if weighty[i] and (rank := spearman(norms[:, i], exact[:, i])) is not None
    }
    least = min(ranks, key=ranks.get) if ranks else None
    return Rounding(
        _levels(errors),
        _levels(relative(sums, exact_sums)),
        spearman(sums[:, 0], exact_sums[:, 0]),
        ranks.get(least),
        least,
        float((errors > OFF).any(1).double().mean()),
        int((~norms.isfinite()).sum()),
    )


def spearman(values: Tensor, exact: Tensor) -> float | None:
    """Return the rank correlation, None where either is constant; NaN ranks as infinity.

    Args:
        values: (B,).
        exact: (B,).
    """
    a, b = (rankdata(np.nan_to_num(v.numpy(), nan=np.inf)) for v in (values, exact))
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _levels(errors: Tensor) -> dict[str, float]:
    flat = errors.flatten().numpy()
    # between two values the upper one: infinity cannot be interpolated
    return {name: float(np.quantile(flat, q, method="higher")) for name, q in LEVELS.items()}
