"""Times contenders in turn, again and again, so that a machine's drift hits all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from statistics import median

import torch
from torch import Tensor

from gradbench.bench.contenders import Contender, Unavailable
from gradbench.support.progress import Progress

SECONDS = 0.1
"""A shorter run is repeated within one measurement until it lasts this long."""
MAX_CALLS = 1000


@dataclass
class Measured:
    """What the rounds gave.

    Attributes:
        seconds: contender -> seconds per image, one per round.
        calls: contender -> runs within one measurement.
        norms: contender -> squared norms of its first run, or None.
        failed: contender -> why it could not take part.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    norms: dict[str, Tensor | None] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ratio:
    """Time beside the reference's: median, smallest and largest over the rounds."""

    median: float
    low: float
    high: float


def measure(contenders: Sequence[Contender], rounds: int, device: torch.device) -> Measured:
    """Run every contender once to warm up, then in each round once more, the order rotated.

    Collection of garbage waits until a measurement is over. A contender that fails is left out from
    there on.

    Args:
        contenders: what to time.
        rounds: measurements of each.
        device: is waited for before and after each measurement.
    """
    found = Measured()
    total = len(contenders) * (rounds + 1)
    with _quick_collection(), Progress("timing", total, "measurements") as progress:

        def attempt(contender: Contender, work: Callable[[], None]) -> None:
            if contender.name not in found.failed:
                try:
                    work()
                except Exception as fault:  # what a library cannot do is a line of the table
                    found.failed[contender.name] = reason(fault)
                    found.seconds.pop(contender.name, None)
            progress.advance(1, contender.name)

        for contender in contenders:
            attempt(contender, lambda one=contender: _warm_up(one, found, device))
        for i in range(rounds):
            for contender in rotated(contenders, i):
                attempt(contender, lambda one=contender: _time(one, found, device))
    return found


def rotated(items: Sequence[Contender], by: int) -> list[Contender]:
    """Return the items in an order that begins `by` places later."""
    by %= max(len(items), 1)
    return [*items[by:], *items[:by]]


def reference_of(seconds: Mapping[str, Sequence[float]], candidates: Sequence[str]) -> str:
    """Return the candidate with the smallest median time."""
    return min((c for c in candidates if c in seconds), key=lambda c: median(seconds[c]))


def ratio(own: Sequence[float], reference: Sequence[float]) -> Ratio:
    """Return the ratio to the reference, taken within each round.

    >>> ratio([2.0, 3.0, 9.0], [1.0, 2.0, 3.0])
    Ratio(median=2.0, low=1.5, high=3.0)
    """
    ratios = [a / b for a, b in zip(own, reference, strict=True)]
    return Ratio(median(ratios), min(ratios), max(ratios))


def reason(fault: BaseException) -> str:
    """Return in one short line why something failed."""
    if isinstance(fault, Unavailable):
        return str(fault)
    text = " ".join(str(fault).split())
    if isinstance(fault, torch.OutOfMemoryError) or "can't allocate memory" in text:
        return "out of memory"
    return f"{type(fault).__name__}: {text[:120]}{'…' if len(text) > 120 else ''}"


@contextmanager
def _quick_collection():
    """Keep what is there already out of the collections between measurements."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _warm_up(contender: Contender, found: Measured, device: torch.device) -> None:
    """Run once for the norms; where that was quick, once more to see how long a warm run takes."""
    begun = time.perf_counter()
    found.norms[contender.name] = contender.run()
    synchronize(device)
    seconds = time.perf_counter() - begun
    if seconds < 10 * SECONDS:
        seconds = _seconds(contender, 1, device)
    found.calls[contender.name] = min(MAX_CALLS, max(1, ceil(SECONDS / max(seconds, 1e-9))))
    found.seconds[contender.name] = []


def _time(contender: Contender, found: Measured, device: torch.device) -> None:
    calls = found.calls[contender.name]
    seconds = _seconds(contender, calls, device)
    found.seconds[contender.name].append(seconds / calls / contender.images)


def _seconds(contender: Contender, calls: int, device: torch.device) -> float:
    gc.collect()
    gc.disable()
    try:
        synchronize(device)
        begun = time.perf_counter()
        for _ in range(calls):
            contender.run()
        synchronize(device)
        return time.perf_counter() - begun
    finally:
        gc.enable()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
