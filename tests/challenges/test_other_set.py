"""Images of another set: a part of them, the same one every time."""

import numpy as np
import pytest

from gradbench.challenges.other_set import OtherSet
from gradbench.config import compose
from gradbench.data.imageset import ImageSet, source_ids
from gradbench.errors import GradbenchError
from gradbench.run.experiment import build_experiment


def other(count: int = 200, status: str = "official", note: str = "") -> ImageSet:
    pixels = np.random.default_rng(1).integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
    labels = np.repeat([0, 1], [count // 4, count - count // 4])
    sources = source_ids("other", "test", count)
    return ImageSet("other", "test", pixels, labels, sources, status=status, note=note)


def test_a_part_has_the_shares_of_the_classes_and_is_the_same_every_time():
    images = other()
    found = OtherSet("other", count=40).prepare(images, (3, 8, 8), "some")
    assert np.bincount(found.labels).tolist() == [10, 30]
    rows = [images.sources.tolist().index(source) for source in found.sources]
    assert rows == sorted(rows)
    assert np.array_equal(found.images, images.images[rows])
    again = OtherSet("other", count=40).prepare(images, (3, 8, 8), "some")
    assert again.fingerprint == found.fingerprint


def test_a_part_is_said_to_be_one():
    found = OtherSet("other", count=40).prepare(other(note="made so"), (3, 8, 8), "some")
    assert (found.name, found.status) == ("some", "part")
    assert found.note == "made so; 40 of 200 images"
    kept = OtherSet("other", count=40).prepare(other(status="stand_in"), (3, 8, 8), "some")
    assert kept.status == "stand_in"


@pytest.mark.parametrize("count", [None, 200, 5000])
def test_no_more_than_there_are(count):
    found = OtherSet("other", count=count).prepare(other(), (3, 8, 8), "all")
    assert (len(found), found.status, found.note) == (200, "official", "")


@pytest.mark.parametrize("count", [9, 2.5, True])
def test_a_count_that_is_none(count):
    with pytest.raises(GradbenchError, match=rf"^challenge other count={count}: .* at least 10,"):
        OtherSet("other", count=count)


def test_a_slip_of_the_pen_is_told_the_settings_of_set_and_challenge():
    words = ["experiment=ood_cifar10_far", "challenges=[{use: svhn, cuont: 50}]"]
    with pytest.raises(
        GradbenchError, match=r"named 'cuont': did you mean count or counts"
    ) as told:
        build_experiment(compose(words))
    assert "antialias" in str(told.value)
