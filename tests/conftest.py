"""Fixtures of all rooms; the tiny models and image sets stand in `_dummies.py`."""

import os

# Every core runs a test of its own. NumPy and torch, here and in processes that tests start, read
# this when they are imported; `setdefault`, so that a caller may ask for more.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from gradbench.backbones.workers import WorkerPool
from gradbench.store import Store


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_the_machine():
    """Hide the images and the store of this machine: tests make their own.

    Tests marked `data` have read GRADBENCH_DATA by now, when they were collected.
    """
    with pytest.MonkeyPatch.context() as environment:
        for name in ("DATA", "STORE", "OFFLINE"):
            environment.delenv(f"GRADBENCH_{name}", raising=False)
        yield


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture(autouse=True)
def _threads_and_seed():
    """Give every test the same random numbers, and one thread."""
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pool():
    """Two workers on the CPU, started by the first test that calls them."""
    with WorkerPool([torch.device("cpu")] * 2) as two:
        yield two
