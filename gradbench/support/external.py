"""Runs code from outside the package so that a fault in it is a sentence and touches nothing else.

What such code sets for the whole process (random states, default type and device, gradients,
threads, filters of warnings, the working folder) would change whatever comes after it.
"""

from __future__ import annotations

import os
import random
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from gradbench.errors import Faulty, GradbenchError, printable

LONGEST = 300
"""Characters of another program's message that are shown."""
SWITCHES = (
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    (torch.get_default_device, torch.set_default_device),
    (np.geterr, lambda kinds: np.seterr(**kinds)),
    (os.getcwd, os.chdir),
)
"""Pairs of a function that reads a setting of the process and one that sets it."""
FLAGS = (
    (torch.backends.cudnn, ("benchmark", "deterministic", "allow_tf32")),
    (torch.backends.cuda.matmul, ("allow_tf32",)),
)


@contextmanager
def preserve_process_state() -> Iterator[None]:
    """Put random states and settings of the process back to what they were before."""
    switches = [(read(), set_) for read, set_ in SWITCHES]
    flags = [(where, name, getattr(where, name)) for where, names in FLAGS for name in names]
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    accelerator = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    filters = list(warnings.filters)
    try:
        yield
    finally:
        for (before, set_), (read, _) in zip(switches, SWITCHES):
            if read() != before:
                set_(before)
        for where, name, before in flags:
            if getattr(where, name) != before:
                setattr(where, name, before)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if accelerator is not None:
            torch.cuda.set_rng_state_all(accelerator)
        if warnings.filters != filters:
            warnings.filters[:] = filters


@contextmanager
def external_call(name: str) -> Iterator[None]:
    """Call code from outside: settings are kept, and an exception becomes one sentence.

    Args:
        name: of the member and the method, for example `detector mine: Mine.score`.

    Raises:
        Faulty: for any exception, with the file and line that raised it.
    """
    with preserve_process_state():
        try:
            yield
        except (Exception, SystemExit) as fault:
            if isinstance(fault, GradbenchError) and type(fault) is not GradbenchError:
                raise  # a kind of its own already: missing data, or a fault of another class
            raise Faulty(f"{name} {describe_exception(fault)}") from fault


def describe_exception(fault: BaseException) -> str:
    """Return what was raised, and in which line of somebody's file, as the end of a sentence."""
    text = printable(" ".join(str(fault).split()))[:LONGEST]
    kind = "" if isinstance(fault, GradbenchError) else f"{type(fault).__name__} "
    place = external_line(fault)
    where = f" in {place}" if place else ""
    return f"raises {kind}({text}){where}" if text else f"raises {kind.strip()}{where}"


def external_line(fault: BaseException) -> str:
    """Return `FILE, line N` of the innermost line from outside that an exception came through."""
    libraries = (*LIBRARIES, Path(sys.prefix) / "bin")
    for frame in reversed(traceback.extract_tb(fault.__traceback__)):
        path = Path(frame.filename)
        if frame.filename.startswith("<frozen") or any(map(path.is_relative_to, libraries)):
            continue
        path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        return f"{printable(path)}, line {frame.lineno}"
    return ""


LIBRARIES = (
    *(Path(__file__).parents[1], Path(np.__file__).parents[1], Path(torch.__file__).parents[1]),
    Path(random.__file__).parent,
)
"""Folders of gradbench, of installed packages and of Python."""


def seed_process(seed: int) -> None:
    """Set the random states of the process, inside `preserve_process_state`."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # torch.manual_seed notes a traceback for each accelerator that is not in use: 10 ms
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
