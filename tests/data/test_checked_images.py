"""What a data set of one's own may hand over as in-distribution images."""

from dataclasses import replace

import numpy as np
import pytest
from _dummies import images

from gradbench.data.dataset import Dataset, DataSettings
from gradbench.data.in_distribution import load_in_distribution
from gradbench.data.loading import LoadedSplit
from gradbench.errors import Faulty, GradbenchError, MissingData


class Mine(Dataset):
    """Gives what it is told to give."""

    def load(self, role, settings):
        return self.turn(images(60, seed=role == "test"))

    def turn(self, found):
        return found


def world(tmp_path, **methods):
    kind = type("Mine", (Mine,), methods)
    dataset = kind(name="mine", roles={"train": "train", "test": "test"}, holdout=9)
    return load_in_distribution(dataset, DataSettings(tmp_path, False))


def test_good_images_are_taken(tmp_path):
    found = world(tmp_path)
    assert (len(found.train), len(found.hold_out), len(found.test)) == (51, 9, 60)
    assert found.test.fingerprint == images(60, seed=1).fingerprint
    narrow = world(tmp_path, turn=lambda s, i: replace(i, labels=i.labels.astype(np.uint8)))
    assert narrow.test.labels.dtype == np.int64


@pytest.mark.parametrize(
    ("turn", "text"),
    [
        (lambda s, i: (i.images, i.labels), "gives tuple: an ImageSet is due"),
        (lambda s, i: replace(i, labels=i.labels[:-1]), "raises ValueError .*differ in size"),
        (lambda s, i: replace(i, labels=i.labels.astype(float)), "labels as float64"),
        (lambda s, i: replace(i, labels=i.labels + 1), "labels from 1 to 3: 0 to 2, one for each"),
        (lambda s, i: replace(i, labels=i.labels - 1), "labels from -1 to 1"),
        (lambda s, i: replace(i, images=i.images.astype("f4") / 255), "float32: uint8 is due"),
        (lambda s, i: replace(i, images=i.images.astype("i8")), "int64: uint8 is due"),
        (lambda s, i: replace(i, images=i.images // 255), "without a grey level above 1"),
        (lambda s, i: replace(i, images=i.images.transpose(0, 2, 3, 1)), "C 1 or 3 is due"),
        (lambda s, i: i.nothing, r"raises AttributeError .*test_checked_\w+\.py, line \d+"),
    ],
)
def test_images_that_are_none(tmp_path, turn, text):
    with pytest.raises(Faulty, match=text) as caught:
        world(tmp_path, turn=turn)
    assert str(caught.value).startswith("dataset mine: Mine.load('train')")


def test_a_stray_label_of_a_loader_of_ones_own_does_not_decide_the_classes(tmp_path):
    def stray(self, found):
        return replace(found, classes=(), labels=np.where(np.arange(60) == 0, 2**40, found.labels))

    with pytest.raises(GradbenchError, match=r"the largest is 1099511627776, which would make"):
        world(tmp_path, turn=stray)


def test_a_hold_out_that_is_none(tmp_path):
    with pytest.raises(Faulty, match=r"Mine.held_out gives int64 \(9,\): an array \(60,\) of bool"):
        world(tmp_path, held_out=lambda self, train: np.arange(9))


def test_missing_data_stays_missing_data(tmp_path):
    def load(self, role, settings):
        raise MissingData("nowhere")

    with pytest.raises(MissingData, match=r"^nowhere$"):
        world(tmp_path, load=load)


def test_raw_arrays_of_a_wrong_kind_are_one_sentence(tmp_path):
    class Read(Dataset):
        def is_local(self, split, settings):
            return True

        def read(self, split, settings):
            return LoadedSplit(images(20).images, [0] * 20)

    dataset = Read(name="mine", roles={"train": "train", "test": "test"})
    with pytest.raises(Faulty, match=r"Read.load\('train'\)"):
        load_in_distribution(dataset, DataSettings(tmp_path, False))
