"""Which clean images a detector without challenges is fitted on."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from gradbench.errors import unknown
from gradbench.methods.base import Detector, Outputs, Samples

BANKS = ("train", "hold_out")
HEAD = ("head/weight", "head/bias")


def declare(
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
    given = HEAD if head else ()
    if bank == "train":
        return (*reads, *given), ()
    return given, tuple(reads)


def fitted_on(detector: Detector, bank: Outputs, fit: Samples) -> dict[str, Tensor]:
    """Return what a detector with `declare`d reads fits on, whichever bank it is."""
    hold_out = {name: fit.outputs[name][~fit.abnormal] for name in detector.hold_out_reads}
    return {name: bank[name] for name in detector.bank_reads} | hold_out
