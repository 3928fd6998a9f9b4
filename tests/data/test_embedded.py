import numpy as np
import pytest
from _data_sets import build
from sklearn.datasets import load_digits, load_sample_image

from gradbench.data.dataset import DataSettings
from gradbench.data.embedded import Digits, Patches
from gradbench.errors import GradbenchError

ROLES = {"train": "train", "test": "test"}


def test_digits_are_split_once_and_by_class(tmp_path):
    digits = Digits(name="digits", roles=ROLES)
    train, test = (digits.load(role, DataSettings(tmp_path)) for role in ("train", "test"))
    assert (len(train), len(test)) == (1200, 597)
    assert train.shape == test.shape == (1, 8, 8)
    share = np.bincount(test.labels) / np.bincount(load_digits().target)
    assert np.abs(share - 597 / 1797).max() < 0.005
    pixels = np.concatenate([train.images, test.images])
    levels = np.unique(pixels)
    assert (levels[0], levels[-1], len(levels)) == (0, 255, 17)
    whole = np.rint(load_digits().images * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, pixels)) == sorted(map(bytes, whole))
    assert digits.load("test", DataSettings(tmp_path)).fingerprint == test.fingerprint


def test_patches_are_tiles_in_regions(tmp_path):
    patches = Patches(name="patches", roles={"challenge": "all"})
    images = patches.load("challenge", DataSettings(tmp_path))
    assert images.images.shape == (520, 3, 32, 32)
    flower = load_sample_image("flower.jpg")[32:64, 64:96]
    assert np.array_equal(images.images[260 + 20 + 2], flower.transpose(2, 0, 1))
    assert images.groups[260 + 20 + 2] == "patches/all/flower/0-0"
    assert len(set(images.groups)) == 2 * 4 * 5
    assert len(set(images.sources)) == 520
    with pytest.raises(GradbenchError, match="patches tile=500: write a whole number"):
        build("patches", tile=500)
