import numpy as np
import pytest

from gradbench.data.imageset import ImageSet, source_ids
from gradbench.data.labels import exclude_classes, overlapping_classes
from gradbench.errors import GradbenchError


def made(classes=("n01 goldfish", "n02 goose", "n03 frog")):
    pixels = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    labels = np.array([0, 1, 2, 0, 1, 2])
    return ImageSet("tiny", "test", pixels, labels, source_ids("tiny", "test", 6), classes=classes)


def test_the_committed_list_names_classes_of_cifar10():
    found = overlapping_classes("tiny_imagenet_cifar10")
    assert len(found) == 23
    assert "n02123045" in found
    assert all(len(wnid) == 9 and wnid[0] == "n" for wnid in found)


def test_unknown_lists_are_refused():
    with pytest.raises(GradbenchError, match="did you mean tiny_imagenet_cifar10"):
        overlapping_classes("tiny_imagenet_cifar")


@pytest.mark.parametrize("names", [["n02", "n03"], ["n02 goose", "n03"]])
def test_classes_are_left_out_by_id_or_name(names):
    found = exclude_classes(made(), names)
    assert found.images.ravel().tolist() == [0, 3]
    assert found.sources.tolist() == ["tiny/test/0", "tiny/test/3"]
    assert found.note == "without 2 classes, 4 images left out"


def test_wrong_exclusions_are_refused():
    with pytest.raises(GradbenchError, match="class of tiny"):
        exclude_classes(made(), ["n09"])
    with pytest.raises(GradbenchError, match="does not name its classes"):
        exclude_classes(made(()), ["n01"])
    with pytest.raises(GradbenchError, match="no image is left"):
        exclude_classes(made(), ["n01", "n02", "n03"])
