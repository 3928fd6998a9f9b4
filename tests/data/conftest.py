import pytest

from gradbench.data.dataset import DataSettings


@pytest.fixture
def offline(tmp_path):
    return DataSettings(tmp_path, download=False)
