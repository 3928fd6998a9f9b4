"""Peak memory of contenders: on a processor each in a process of its own, on a GPU in this one.

What counts is the peak above the level at which model and images are there and the contender has
worked once on two images, so that code and tables that are loaded once are not counted.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch

from gradbench.bench.contenders import Unavailable, prepare
from gradbench.bench.networks import complete, make
from gradbench.bench.settings import Settings
from gradbench.bench.timing import reason, synchronize
from gradbench.errors import GradbenchError

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")
MIB = 2**20


class Killed(Unavailable):
    """The process of a contender was killed, which for want of memory is the usual cause."""


def peak_in_child(name: str, settings: Settings) -> float:
    """Return the peak of resident memory, in MiB, that a contender adds in a fresh process.

    Raises:
        Unavailable: if the contender cannot take part.
        Killed: if its process ended without an answer.
    """
    paths = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path if entry)
    ran = subprocess.run(
        [sys.executable, "-m", "gradbench.bench.memory", name, json.dumps(asdict(settings))],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = ran.stdout.splitlines()
    if ran.returncode < 0:
        raise Killed(f"killed by signal {-ran.returncode}, most likely for want of memory")
    if ran.returncode or not lines:
        last = (ran.stderr.splitlines() or ["nothing was said"])[-1]
        raise Killed(f"its process ended with code {ran.returncode}: {last[:120]}")
    answer = json.loads(lines[-1])
    if "failed" in answer:
        raise Unavailable(answer["failed"])
    return answer["mib"]


def peak_on_device(run: Callable[[], object], device: torch.device) -> float:
    """Return the peak of allocated memory, in MiB, that one run adds on a GPU."""
    gc.collect()
    synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    level = torch.cuda.memory_allocated(device)
    run()
    synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - level) / MIB


def peak_here(run: Callable[[], object]) -> float:
    """Return the peak of resident memory, in MiB, that one run adds in this process.

    Linux counts from now on; elsewhere the peak of the whole life of the process must do, which
    tells too little where it was higher before.
    """
    gc.collect()
    _give_back()
    if _restart_peak():
        level = _status("VmRSS")
        run()
        return max(0, _status("VmHWM") - level) / MIB
    level = _lifetime_peak()
    run()
    return (_lifetime_peak() - level) / MIB


def _restart_peak() -> bool:
    """Let Linux measure the peak anew; tell whether it does."""
    try:
        RESET.write_text("5")
    except OSError:
        return False
    return True


def _status(field: str) -> int:
    """Return a field of the process's status in bytes."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def _lifetime_peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def _give_back() -> None:
    """Hand freed memory back to the system, so that using it again shows."""
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)


def main(words: list[str]) -> None:
    """Measure one contender and print the answer as JSON; for `peak_in_child`."""
    name, about = words
    settings = json.loads(about)
    settings = complete(Settings(**settings | {"folders": tuple(settings["folders"])}))
    try:
        model, images = make(settings)
        prepare(name, model, images[:2], settings).run()
        contender = prepare(name, model, images, settings)
        answer = {"mib": peak_here(contender.run)}
    except GradbenchError as fault:
        answer = {"failed": str(fault)}
    except Exception as fault:  # the parent shows it in the contender's line
        answer = {"failed": reason(fault)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1:])
