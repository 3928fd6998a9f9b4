"""Peak memory of steps, one within another."""

import numpy as np
import pytest

from gradbench import peak
from gradbench.peak import Peaks


def touch(mib: int) -> None:
    np.ones(mib * 2**20, np.uint8).sum()


@pytest.mark.skipif(not peak._restart(), reason="the system does not measure peaks anew")
def test_a_step_within_another_counts_for_both_and_what_was_before_for_none():
    touch(160)
    peaks, outer, before, inner, after = Peaks(), {}, {}, {}, {}
    with peaks.watch(outer.update):
        with peaks.watch(before.update):
            touch(8)
        with peaks.watch(inner.update):
            touch(96)
        with peaks.watch(after.update):
            touch(8)
    assert 85 < inner["peak_mib"] < 130
    assert 85 < outer["peak_mib"] < 130
    assert before["peak_mib"] < 40
    assert after["peak_mib"] < 40


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
