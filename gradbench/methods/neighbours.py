"""Distance to the k-th nearest of many vectors, in blocks of bounded memory."""

from __future__ import annotations

import torch
from torch import Tensor

from gradbench.errors import GradbenchError

BLOCK = 2**25
"""Distances that are held at once."""


def kth_distance(queries: Tensor, bank: Tensor, k: int) -> Tensor:
    """Return the Euclidean distance of each query to its k-th nearest vector of the bank.

    Neighbours are found by float32 products; the distance to the k-th is then computed from the
    difference in float64, so that small distances keep their digits.

    Args:
        queries: (N, D).
        bank: (M, D) with M >= k.
        k: 1 for the nearest.

    Returns:
        (N,) float64.
    """
    queries, bank = queries.float(), bank.float()
    half = 0.5 * bank.square().sum(1)
    found = []
    for block in queries.split(max(BLOCK // len(bank), 1)):
        # |q - b|^2 / 2 without |q|^2, which is the same for the whole bank
        near = torch.addmm(half, block, bank.T, alpha=-1).topk(k, dim=1, largest=False).indices
        found.append((block.double() - bank[near[:, -1]].double()).norm(dim=1))
    return torch.cat(found) if found else torch.empty(0, dtype=torch.float64)


def check_count(name: str, k: int, bank: Tensor) -> None:
    """Raise a GradbenchError if there are fewer vectors than neighbours are asked for."""
    if len(bank) < k:
        raise GradbenchError(
            f"{name} k={k}: choose a whole number from 1 to {len(bank)}, the number of images that "
            "it is fitted on"
        )
