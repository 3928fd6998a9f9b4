"""Fixtures of all rooms; the tiny models and image sets stand in `_dummies.py`."""

import pytest
import torch

from gradbench.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture(autouse=True)
def _threads_and_seed():
    """Give every test the same random numbers, and the next one the same number of threads."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
