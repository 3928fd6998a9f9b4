"""Memory of this process: freed blocks kept (glibc), and the peak of each step (Linux, CUDA)."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # names of mallopt(3)
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MIB = 2**20


def keep_freed_memory() -> bool:
    """Keep freed memory for the next tensor; tell whether the C library took the settings.

    Every pass over a batch asks for the same large blocks again; fetching them anew, page by page,
    took a third of a forward pass on the CPU (`scripts/benchmarks/freed_memory.py`). Results do not
    change. Settings of the user (`MALLOC_…`, `GLIBC_TUNABLES`) stay as they are.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(MMAP_MAX, 0) and mallopt(TRIM_THRESHOLD, 2**31 - 1))
    return False


def release_freed_memory() -> None:
    """Give the system all memory back that nothing uses, so that a step's own peak can be seen."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


class PeakMemory:
    """Measures what steps add to the memory that was in use when they began.

    The operating system keeps one high-water mark for the process: a step that begins within
    another takes note of the mark for it before it starts the mark anew.
    """

    def __init__(self):
        self._open: list[dict[str, float]] = []

    @contextmanager
    def watch(self, note: Callable[[dict[str, float]], None]) -> Iterator[None]:
        """Measure what happens within, and hand over the peaks in MiB by name, if any are known.

        These are `peak_mib` (resident memory) and `peak_device_mib` (allocated by CUDA).
        """
        self._note_marks()
        release_freed_memory()
        level, high = _memory("VmRSS", "memory_allocated"), {}
        if not _reset_marks():  # the mark is that of the whole life of the process
            level.pop("peak_mib", None)
        self._open.append(high)
        try:
            yield
        finally:
            self._note_marks()
            self._open.pop()
            _reset_marks()
            note({name: round(max(0.0, high[name] - was) / MIB, 1)
                  for name, was in level.items() if name in high})  # fmt: skip

    def _note_marks(self) -> None:
        """Note the marks for all steps that are going on."""
        for name, mark in _memory("VmHWM", "max_memory_allocated").items():
            for high in self._open:
                high[name] = max(high.get(name, 0.0), mark)


def _cuda():
    """Return torch.cuda where it is at work; nothing is imported for the sake of measuring."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def _memory(resident: str, allocated: str) -> dict[str, float]:
    """Return bytes of resident memory by a field of STATUS, of devices by torch.cuda's function."""
    memory: dict[str, float] = {}
    with suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith(f"{resident}:"):
                memory["peak_mib"] = 1024.0 * int(line.split()[1])
    if cuda := _cuda():
        devices = range(cuda.device_count())
        memory["peak_device_mib"] = float(sum(getattr(cuda, allocated)(d) for d in devices))
    return memory


def _reset_marks() -> bool:
    """Have the marks start anew; tell whether the system lets us for resident memory."""
    if cuda := _cuda():
        for device in range(cuda.device_count()):
            cuda.reset_peak_memory_stats(device)
    try:
        RESET.write_text("5")
    except OSError:
        return False
    return True
