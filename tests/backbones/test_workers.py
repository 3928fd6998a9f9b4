"""Workers: they join, share, answer through rank 0, and one that fails ends all."""

import os
from contextlib import suppress

import pytest
import torch
from _two import CPU, die_in_one, raise_in_one, ranks, sums

from gradbench.backbones.devices import find_devices
from gradbench.backbones.workers import Worker, WorkerPool
from gradbench.errors import GradbenchError


def alive(number: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(number, 0)
        return True
    return False


def test_rank_0_answers_for_two_processes_that_are_not_this_one(pool):
    found = pool.call("a test", ranks, 10)
    assert [one[:3] for one in found] == [(10, 2, 1), (11, 2, 1)]
    assert len({*(one[3] for one in found), os.getpid()}) == 3
    assert pool.call("a test", ranks, 0)[0][3] == found[0][3]  # the same processes again


def test_sums_over_both(pool):
    wide, single = pool.call("a test", sums)
    assert torch.equal(wide, torch.full((2, 3), 3.0))
    assert torch.equal(single, torch.tensor(10.0))


@pytest.mark.parametrize(("count", "of"), [(128, 3), (2, 2), (1, 4), (0, 2), (16, 16)])
def test_shares_cover_all_once_in_order(count, of):
    parts = [Worker(CPU, rank, of).shard(count) for rank in range(of)]
    assert [i for part in parts for i in range(count)[part]] == list(range(count))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.slow
def test_one_that_raises_or_dies_ends_all_with_one_sentence_and_the_next_call_starts_anew():
    with WorkerPool([CPU] * 2) as two:
        first = two.call("a test", ranks, 0)
        with pytest.raises(GradbenchError, match=r"^the images are blue$"):
            two.call("a test", raise_in_one, GradbenchError("the images are blue"))
        assert not any(alive(one[3]) for one in first)
        told = r"^worker 2 of 2 \(cpu\) failed in a test: ValueError: two; finished products are"
        with pytest.raises(GradbenchError, match=told):
            two.call("a test", raise_in_one, ValueError("two\nlines"))
        told = r"^worker 2 of 2 \(cpu\) died in a test \(signal SIGKILL\): .* the same command"
        with pytest.raises(GradbenchError, match=told):
            two.call("a test", die_in_one)


def test_what_cannot_be_sent_is_told_before_anything_starts():
    two = WorkerPool([CPU] * 2)
    with pytest.raises(GradbenchError, match="devices=2: what a test needs cannot be sent"):
        two.call("a test", ranks, lambda: 0)
    assert not two._workers


# devices


def test_devices_of_a_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    first, second, third = (torch.device("cuda", i) for i in range(3))
    assert find_devices("cpu", 3) == (CPU,) * 3
    assert find_devices("auto", 2) == find_devices("cuda", 2) == (first, second)
    assert find_devices("cuda:2", 1) == (third,)
    with pytest.raises(GradbenchError, match="devices=4: this machine has 3 of type cuda"):
        find_devices("cuda", 4)
    with pytest.raises(GradbenchError, match=r"device=cuda:1 is one device.*leave device=auto"):
        find_devices("cuda:1", 2)
    with pytest.raises(GradbenchError, match="device=cuda:3 is not here: choose auto, cpu"):
        find_devices("cuda:3", 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(GradbenchError, match="devices=2: this machine has 1 of type mps"):
        find_devices("mps", 2)
