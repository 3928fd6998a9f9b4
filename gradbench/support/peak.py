"""Peak memory of steps, one within another: of this process on Linux, and of the CUDA devices."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gradbench.support.memory import release_freed_memory

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MIB = 2**20


class Peaks:
    """Measures what steps add to the memory that was in use when they began.

    The operating system keeps one high-water mark for the process: a step that begins within
    another takes note of the mark for it before it starts the mark anew.
    """

    def __init__(self):
        self._open: list[dict[str, float]] = []

    @contextmanager
    def watch(self, note: Callable[[dict[str, float]], None]) -> Iterator[None]:
        """Measure what happens within, and hand over the peaks in MiB by name, if any are known.

        Args:
            note: is given `peak_mib` (resident memory) and `peak_device_mib` (allocated by CUDA).
        """
        self._raise()
        release_freed_memory()
        level, high = _levels(), {}
        if not _restart():  # the mark is that of the whole life of the process
            level.pop("peak_mib", None)
        self._open.append(high)
        try:
            yield
        finally:
            self._raise()
            self._open.pop()
            _restart()
            note({name: round(max(0.0, high[name] - was) / MIB, 1)
                  for name, was in level.items() if name in high})  # fmt: skip

    def _raise(self) -> None:
        """Note the marks for all steps that are going on."""
        for name, mark in _marks().items():
            for high in self._open:
                high[name] = max(high.get(name, 0.0), mark)


def _status(field: str) -> dict[str, float]:
    with suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith(f"{field}:"):
                return {"peak_mib": 1024.0 * int(line.split()[1])}
    return {}


def _cuda():
    """Return torch.cuda where it is at work; nothing is imported for the sake of measuring."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def _levels() -> dict[str, float]:
    cuda = _cuda()
    return _status("VmRSS") | ({"peak_device_mib": float(_over(cuda, "memory_allocated"))}
                               if cuda else {})  # fmt: skip


def _marks() -> dict[str, float]:
    cuda = _cuda()
    return _status("VmHWM") | ({"peak_device_mib": float(_over(cuda, "max_memory_allocated"))}
                               if cuda else {})  # fmt: skip


def _over(cuda, what: str) -> int:
    return sum(getattr(cuda, what)(device) for device in range(cuda.device_count()))


def _restart() -> bool:
    """Have the marks start anew; tell whether the system lets us for resident memory."""
    if cuda := _cuda():
        for device in range(cuda.device_count()):
            cuda.reset_peak_memory_stats(device)
    try:
        RESET.write_text("5")
    except OSError:
        return False
    return True
