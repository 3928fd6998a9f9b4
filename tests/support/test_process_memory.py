"""Freed memory is kept or given back; peaks of steps, one within another."""

import ctypes
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from gradbench.support import memory

GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")

RESIDENT = """
import sys
from pathlib import Path
import numpy as np
from gradbench.support.memory import keep_freed_memory, release_freed_memory

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))

took = keep_freed_memory() if sys.argv[1] == "keep" else None
level = resident()
np.ones(200 * 2**20, np.uint8).sum()
after = resident() - level
release_freed_memory()
print(took, after > 150, resident() - level > 50)
"""


def told(word: str, **environment: str) -> list[str]:
    quiet = {n: v for n, v in os.environ.items() if not n.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", RESIDENT, word]
    ran = subprocess.run(command, capture_output=True, text=True, env=quiet | environment)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


@pytest.mark.skipif(not GLIBC, reason="not the GNU C library")
def test_freed_memory_is_kept_until_it_is_released():
    assert told("leave") == ["None", "False", "False"]
    assert told("keep") == ["True", "True", "False"]


@pytest.mark.skipif(not GLIBC, reason="not the GNU C library")
def test_what_the_user_set_stays():
    assert told("keep", MALLOC_TRIM_THRESHOLD_="131072") == ["False", "False", "False"]


def test_another_c_library_is_left_alone(monkeypatch):
    for name in [n for n in os.environ if n.startswith(("MALLOC_", "GLIBC_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert memory.keep_freed_memory() is False
    memory.release_freed_memory()


def touch(mib: int) -> None:
    np.ones(mib * 2**20, np.uint8).sum()


STEPS = """
import json
import numpy as np
from gradbench.support.memory import PeakMemory

def touch(mib):
    np.ones(mib * 2**20, np.uint8).sum()

touch(160)
peaks, told = PeakMemory(), {name: {} for name in ("outer", "before", "inner", "after")}
with peaks.watch(told["outer"].update):
    for name, mib in (("before", 8), ("inner", 96), ("after", 8)):
        with peaks.watch(told[name].update):
            touch(mib)
print(json.dumps({name: one["peak_mib"] for name, one in told.items()}))
"""


@pytest.mark.skipif(not memory._reset_marks(), reason="the system does not measure peaks anew")
def test_a_step_within_another_counts_for_both_and_what_was_before_for_none():
    # in a process of its own: pages of libraries that the system takes back would count as less
    ran = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    told = json.loads(ran.stdout)
    assert 85 < told["inner"] < 130
    assert 85 < told["outer"] < 130
    assert told["before"] < 40
    assert told["after"] < 40


def test_where_the_system_does_not_tell_nothing_is_claimed(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "RESET", tmp_path / "no" / "such")
    told = {}
    with memory.PeakMemory().watch(told.update):
        touch(1)
    assert "peak_mib" not in told


def test_a_fault_within_goes_its_way():
    peaks, told = memory.PeakMemory(), {}
    with pytest.raises(ValueError, match="within"), peaks.watch(told.update):
        raise ValueError("within")
    assert peaks._open == []
