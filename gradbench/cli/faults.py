"""Puts exceptions into the one sentence that a command ends with."""

from __future__ import annotations

import re
import sys

from gradbench.errors import GradbenchError

_SHORT = re.compile(
    r"failed to map segment|[Cc]annot allocate memory|can't (allocate memory|start new thread)|"
    r"not enough memory|bad_alloc|out of memory"
)
"""Messages of other libraries that are short of memory."""


def as_error(fault: Exception) -> GradbenchError:
    """Return the error for an exception of the machine, or of a user's own class.

    Raises:
        Exception: the same one, if it tells of a fault of the program.
    """
    if isinstance(fault, GradbenchError):
        return fault
    text = " ".join(str(fault).split())
    if isinstance(fault, MemoryError) or (
        isinstance(fault, ImportError | OSError | RuntimeError) and _SHORT.search(text)
    ):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        more = "" if limit < 0 else f", and this shell allows {limit / 2**30:.1f} GiB (ulimit -v)"
        reason = f" ({text[:200]})" if text else ""
        return GradbenchError(f"short of memory{reason}: gradbench takes 4 GiB and more{more}")
    if "torch" in sys.modules:  # before that nothing of a user's has run
        from gradbench.support.external import describe_exception, external_line

        if external_line(fault):
            return GradbenchError(f"a class from outside {describe_exception(fault)}")
    if isinstance(fault, OSError) and fault.filename is not None:
        return GradbenchError(f"{fault.filename}: {fault.strerror}")
    raise fault
