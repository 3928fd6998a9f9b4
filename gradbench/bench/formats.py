"""Computes the same squared norms in every number format, batch by batch in turn."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from gradbench.bench.networks import find_device
from gradbench.bench.rounding import LEVELS, Rounding, rounding
from gradbench.bench.settings import Settings
from gradbench.bench.timing import Ratio, ratio, reason, rotated, synchronize
from gradbench.errors import GradbenchError
from gradbench.gradients import squared_norms
from gradbench.gradients.precision import prefers_channels_last
from gradbench.support.progress import Progress

EXACT = "float64"
REDUCED = ("tf32", "bfloat16", "float16")
NUMBERS = (
    *("precision", "layout", *LEVELS, *(f"sum_{level}" for level in LEVELS), "rank", "least_rank"),
    *("least_tensor", "off", "not_finite", "tensors", "time_ratio", "time_ratio_low"),
    *("time_ratio_high", "images_per_second", "note"),
)
"""Columns of `Outcome.numbers`."""


@dataclass(frozen=True)
class Format:
    """A number format and a memory layout of the images."""

    precision: str
    channels_last: bool

    @property
    def layout(self) -> str:
        """Name of the layout."""
        return "channels_last" if self.channels_last else "contiguous"

    def __str__(self) -> str:
        """Return both as one text."""
        return f"{self.precision} {self.layout}"


@dataclass(frozen=True)
class Outcome:
    """What was found of one format; None where it could not be computed, and the note says why.

    Args:
        format: the format.
        rounding: errors against float64.
        time: beside float32 in the engine's own layout.
        images_per_second: from the median time of a batch.
        tensors: how many the network has.
        note: what is worth knowing.
    """

    format: Format
    rounding: Rounding | None = None
    time: Ratio | None = None
    images_per_second: float | None = None
    tensors: int | None = None
    note: str = ""

    def numbers(self) -> dict[str, Any]:
        """Return the columns `NUMBERS` that are known."""
        found: dict[str, Any] = {
            "precision": self.format.precision,
            "layout": self.format.layout,
            "images_per_second": self.images_per_second,
            "tensors": self.tensors,
            "note": self.note,
        }
        if self.time:
            names = ("time_ratio", "time_ratio_low", "time_ratio_high")
            found |= zip(names, (self.time.median, self.time.low, self.time.high))
        if self.rounding:
            found |= self.rounding.values
            found |= {f"sum_{name}": value for name, value in self.rounding.sums.items()}
            for name in ("rank", "least_rank", "least_tensor", "off", "not_finite"):
                found[name] = getattr(self.rounding, name)
        return found


def measure(model: nn.Module, images: Tensor, settings: Settings) -> list[Outcome]:
    """Compute the norms of all images in every format, and compare them with float64.

    Every batch is a round of `timing`: ratios are taken within it, and the order rotates.

    Args:
        model: in evaluation mode, on the device.
        images: (B, C, H, W) on the device.
        settings: batch and device.

    Raises:
        GradbenchError: if the network cannot be computed in float64.
    """
    device = find_device(settings.device)
    usual = {p: prefers_channels_last(device, p, torch.float32) for p in ("float32", *REDUCED)}
    reference = Format("float32", usual["float32"])
    formats = [
        Format(EXACT, False),
        reference,
        Format("float32", not reference.channels_last),
        *(Format(p, usual[p]) for p in REDUCED),
    ]
    failed: dict[Format, str] = {}
    if device.type == "cpu":
        failed[formats[3]] = "needs an NVIDIA GPU"
    norms: dict[Format, list[Tensor]] = {f: [] for f in formats}
    seconds: dict[Format, list[float]] = {f: [] for f in formats}
    names: list[str] = []

    def compute(one: Format, batch: Tensor) -> None:
        synchronize(device)
        begun = time.perf_counter()
        found = squared_norms(
            model, batch, precision=one.precision, channels_last=one.channels_last
        )
        synchronize(device)
        seconds[one].append((time.perf_counter() - begun) / len(batch))
        norms[one].append(found.values)
        names[:] = found.names

    def attempt(one: Format, batch: Tensor) -> None:
        try:
            compute(one, batch)
        except Exception as fault:  # a format that the device does not have is a line of the table
            failed[one] = reason(fault)

    batches = images.split(settings.batch)
    with Progress("precision", len(batches) * len(formats), "passes") as progress:
        for one in formats:  # to warm up
            if one not in failed:
                attempt(one, images[:2])
            norms[one], seconds[one] = [], []
        for i, batch in enumerate(batches):
            for one in rotated(formats, i):
                if one not in failed:
                    attempt(one, batch)
                progress.advance(1, str(one))
    exact = formats[0]
    if exact in failed:
        raise GradbenchError(f"{EXACT}, with which all is compared, failed: {failed[exact]}")
    return [
        Outcome(one, note=failed[one])
        if one in failed
        else _outcome(one, norms, seconds, exact, reference, names)
        for one in formats
    ]


def _outcome(
    one: Format,
    norms: dict[Format, list[Tensor]],
    seconds: dict[Format, list[float]],
    exact: Format,
    reference: Format,
    names: Sequence[str],
) -> Outcome:
    timed = len(seconds[reference]) == len(seconds[one])  # unless float32 itself has failed
    found = (
        None if one == exact else rounding(torch.cat(norms[one]), torch.cat(norms[exact]), names)
    )
    lost = found.not_finite if found else 0
    notes = ["what errors are taken to"] if one == exact else []
    notes += ["what times are taken to"] if one == reference else []
    notes += [f"{lost} values are not finite"] if lost else []
    return Outcome(
        one,
        found,
        ratio(seconds[one], seconds[reference]) if timed else None,
        1 / median(seconds[one]),
        len(names),
        "; ".join(notes),
    )
