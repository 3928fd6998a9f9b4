"""What the C library does with memory that tensors no longer need (glibc; elsewhere nothing)."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # names of mallopt(3)
AT_MOST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Keep freed memory for the next tensor instead of giving it back to the system at once.

    Every pass over a batch asks for the same large blocks again; fetching them anew, page by page,
    took a third of a forward pass on the CPU (`scripts/freed_memory.py`). Results do not change.
    Settings of the user (`MALLOC_…`, `GLIBC_TUNABLES`) stay as they are.

    Returns:
        Whether the C library knows how and took the settings.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(MMAP_MAX, 0) and mallopt(TRIM_THRESHOLD, AT_MOST))
    return False


def release_freed_memory() -> None:
    """Give the system all memory back that nothing uses, so that a step's own peak can be seen."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
