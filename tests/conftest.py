"""Fixtures of all rooms; the tiny models and image sets stand in `_dummies.py`."""

import pytest
import torch

from gradbench.backbones.workers import WorkerPool
from gradbench.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture(autouse=True)
def _threads_and_seed():
    """Give every test the same random numbers, and one thread: tiny work only waits for more."""
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pool():
    """Two workers on the CPU, started by the first test that calls them."""
    with WorkerPool([torch.device("cpu")] * 2) as two:
        yield two
