"""Freed memory is kept or given back; what cannot be set is left alone."""

import ctypes
import os
import subprocess
import sys

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
