"""The clean images that a detector without challenges is fitted on, and their neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradbench.errors import GradbenchError, unknown
from gradbench.methods.base import Detector, Outputs, Samples

BANKS = ("train", "hold_out")
HEAD = ("head/weight", "head/bias")
BLOCK = 2**25
"""Distances that are held at once."""


def bank_reads(
    bank: str, reads: Sequence[str], head: bool = False
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return (bank_reads, hold_out_reads) of a detector that fits on one bank.

    Args:
        bank: `train`, f's training images as most methods publish, or `hold_out`, clean images
            that f was not trained on and therefore does not know.
        reads: outputs, or `labels`, that the fit needs on them.
        head: whether it needs f's last layer too.

    Raises:
        GradbenchError: for another bank.
    """
    if bank not in BANKS:
        raise unknown("bank", str(bank), BANKS)
    extras = HEAD if head else ()
    return ((*reads, *extras), ()) if bank == "train" else (extras, tuple(reads))


def bank_of(detector: Detector, bank: Outputs, fit: Samples) -> dict[str, Tensor]:
    """Return what a detector with `bank_reads` fits on, whichever bank it is."""
    hold_out = {name: fit.outputs[name][~fit.abnormal] for name in detector.hold_out_reads}
    return {name: bank[name] for name in detector.bank_reads} | hold_out


def kth_distance(queries: Tensor, bank: Tensor, k: int) -> Tensor:
    """Return the distances (N,) of queries (N, D) to their k-th nearest vectors of a bank (M, D).

    Neighbours are found by float32 products; the distance to the k-th is then computed from the
    difference in float64, so that small distances keep their digits.
    """
    queries, bank = queries.float(), bank.float()
    half = 0.5 * bank.square().sum(1)
    distances = []
    for block in queries.split(max(BLOCK // len(bank), 1)):
        # |q - b|^2 / 2 without |q|^2, which is the same for the whole bank
        near = torch.addmm(half, block, bank.T, alpha=-1).topk(k, dim=1, largest=False).indices
        distances.append((block.double() - bank[near[:, -1]].double()).norm(dim=1))
    return torch.cat(distances)


def check_neighbours(name: str, k: int, bank: Tensor) -> None:
    """Raise a GradbenchError if there are fewer vectors than neighbours are asked for."""
    if len(bank) < k:
        raise GradbenchError(
            f"{name} k={k}: choose a whole number from 1 to {len(bank)}, the number of images that "
            "it is fitted on"
        )
