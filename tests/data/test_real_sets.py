import os
from pathlib import Path

import numpy as np
import pytest
from _data_sets import build

from gradbench.data.dataset import DataSettings
from gradbench.data.imageset import channel_statistics
from gradbench.data.labels import overlapping_classes
from gradbench.data.resample import resize_to, round_trip

pytestmark = pytest.mark.data
ROOT = os.environ.get("GRADBENCH_DATA")


def load(name, role, **changes):
    if not ROOT:
        pytest.skip("GRADBENCH_DATA is not set")
    dataset = build(name, **changes)
    settings = DataSettings(Path(ROOT), download=False)
    reason = dataset.ready(role, settings)
    if reason:
        pytest.skip(f"{name}: {reason}")
    return dataset, dataset.load(role, settings)


def test_cifar10_is_whole():
    dataset, test = load("cifar10", "test")
    assert (test.images.shape, test.status) == ((10000, 3, 32, 32), "official")
    assert np.bincount(test.labels).tolist() == [1000] * 10
    np.testing.assert_allclose(channel_statistics(test)[0], dataset.mean, atol=0.01)


def test_tiny_imagenet_loses_its_overlapping_classes():
    _, whole = load("tiny_imagenet", "challenge")
    _, rest = load("tiny_imagenet", "challenge", exclude="tiny_imagenet_cifar10")
    left_out = 50 * len(overlapping_classes("tiny_imagenet_cifar10"))
    assert (len(whole), len(rest)) == (10000, 10000 - left_out)
    words = {rest.classes[label] for label in np.unique(rest.labels)}
    assert not words & {"n01855672 goose", "n02123045 tabby", "n03100240 convertible"}
    fitted = resize_to(rest.select(np.arange(20)), (3, 32, 32))
    assert fitted.note.endswith("64x64 -> 32x32 bilinear antialiased")


def test_tracks_of_signs_stay_together():
    dataset, train = load("gtsrb", "train")
    held = dataset.held_out(train)
    assert not set(train.groups[held]) & set(train.groups[~held])
    assert len(set(train.groups)) < len(train)


@pytest.mark.parametrize("name", ["tiny_imagenet", "textures", "scenes", "gtsrb"])
def test_round_trips_stay_near_the_clean_images(name):
    _, clean = load("cifar10", "test")
    dataset, other = load(name, "challenge")
    clean = clean.select(np.arange(50))
    found = round_trip(clean, other.shape, dataset.processing_of(other))
    off = np.abs(found.images.astype(int) - clean.images).mean()
    assert 0 < off < 16
