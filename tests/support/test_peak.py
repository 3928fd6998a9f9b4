"""Peak memory of steps, one within another."""

import json
import subprocess
import sys

import numpy as np
import pytest

from gradbench.support import peak
from gradbench.support.peak import Peaks


def touch(mib: int) -> None:
    np.ones(mib * 2**20, np.uint8).sum()


STEPS = """
import json
import numpy as np
from gradbench.support.peak import Peaks

def touch(mib):
    np.ones(mib * 2**20, np.uint8).sum()

touch(160)
peaks, told = Peaks(), {name: {} for name in ("outer", "before", "inner", "after")}
with peaks.watch(told["outer"].update):
    for name, mib in (("before", 8), ("inner", 96), ("after", 8)):
        with peaks.watch(told[name].update):
            touch(mib)
print(json.dumps({name: one["peak_mib"] for name, one in told.items()}))
"""


@pytest.mark.skipif(not peak._restart(), reason="the system does not measure peaks anew")
def test_a_step_within_another_counts_for_both_and_what_was_before_for_none():
    # in a process of its own: pages of libraries that the system takes back would count as less
    ran = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    told = json.loads(ran.stdout)
    assert 85 < told["inner"] < 130
    assert 85 < told["outer"] < 130
    assert told["before"] < 40
    assert told["after"] < 40


def test_where_the_system_does_not_tell_nothing_is_claimed(monkeypatch, tmp_path):
    monkeypatch.setattr(peak, "RESET", tmp_path / "no" / "such")
    told = {}
    with Peaks().watch(told.update):
        touch(1)
    assert "peak_mib" not in told


def test_a_fault_within_goes_its_way():
    peaks, told = Peaks(), {}
    with pytest.raises(ValueError, match="within"), peaks.watch(told.update):
        raise ValueError("within")
    assert peaks._open == []
