"""Labels of a user's own sets: both splits numbered alike, and no stray one decides the classes."""

import numpy as np
import pytest
from _data_sets import OWN_ROLES
from _runs import gradbench, one_sentence
from PIL import Image

from gradbench.data.imageset import ImageSet, source_ids
from gradbench.data.in_distribution import load_in_distribution
from gradbench.data.labels import exclude_classes, overlapping_classes
from gradbench.data.user_data import Arrays, Folder
from gradbench.errors import GradbenchError


def tree(root, **classes):
    """Save pictures: `tree(root, Train={"cat": 3})`, each as bright as its class's first letter."""
    for split, counts in classes.items():
        for name, count in counts.items():
            place = root / split / name
            place.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (4, 4), (ord(name[0]), 0, number)).save(place / f"{number}.png")


def brightness(images):
    return {
        images.classes[label]: int(images.images[:][images.labels == label, 0, 0, 0].max())
        for label in np.unique(images.labels)
    }


@pytest.mark.parametrize(
    "names",
    [("train", "test"), ("Train", "Test"), ("training", "validation"), ("TRAIN", "val")],
)
def test_a_class_without_test_images_shifts_no_label(tmp_path, offline, names):
    tree(tmp_path, **{names[0]: dict.fromkeys("abc", 3), names[1]: {"a": 2, "c": 2}})
    found = load_in_distribution(Folder(path=str(tmp_path), roles=OWN_ROLES, holdout=3), offline)
    assert found.train.classes == found.test.classes == ("a", "b", "c")
    assert found.test.labels.tolist() == [0, 0, 2, 2]
    assert brightness(found.test) == {"a": ord("a"), "c": ord("c")}


def test_test_goes_before_val_and_val_among_class_folders_is_a_class(tmp_path, offline):
    tree(tmp_path / "x", train={"a": 3}, val={"a": 1}, test={"a": 2})
    assert Folder(path=str(tmp_path / "x"), roles=OWN_ROLES).places()["test"].name == "test"
    for name in ("a", "val"):
        tree(tmp_path / "y", **{name: {"b": 2}})
    own = Folder(path=str(tmp_path / "y"), roles=OWN_ROLES)
    assert own.places() == {"all": tmp_path / "y"}
    assert own.load("challenge", offline).classes == ("a", "val")


def test_two_folders_of_one_name_are_refused(tmp_path):
    tree(tmp_path, train={"a": 1}, Train={"a": 1}, test={"a": 1})
    with pytest.raises(GradbenchError, match="Train and train: which of them holds the train"):
        Folder(path=str(tmp_path), roles=OWN_ROLES).places()


def test_classes_of_arrays_in_another_order_are_matched_by_name(tmp_path, offline):
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    np.savez(tmp_path / "train.npz", images=images, labels=np.arange(6) % 3, classes=list("abc"))
    labels = np.array([0, 1, 2, 0, 1, 2])
    np.savez(tmp_path / "Test.npz", images=images, labels=labels, classes=list("cab"))
    found = load_in_distribution(Arrays(path=str(tmp_path), roles=OWN_ROLES, holdout=2), offline)
    assert found.test.classes == ("a", "b", "c")
    assert found.test.labels.tolist() == [2, 0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("train", "test", "says"),
    [
        ({"classes": list("abc")}, {"classes": list("abd")}, "no training class for .*'d'"),
        ({"classes": list("aab")}, {"classes": list("abc")}, "two classes of the name 'a'"),
        ({}, {"labels": np.array([0, 1, 5])}, "label 5, the training images have labels 0 to 2"),
        ({"labels": np.array([0, 1, 2**40])}, {}, "3 different labels .* largest is 1099511627776"),
        ({"labels": np.array([1443537, 1484850, 2])}, {}, "number the classes from 0 to 2"),
        ({"labels": np.array([0, 1, -1])}, {}, "the least is -1"),
        ({"labels": None}, {}, "the least is -1 .images without labels can only be a challenge"),
        ({"classes": list("ab")}, {}, "has label 2 but 2 classes"),
    ],
)
def test_labels_that_mean_nothing_are_refused(tmp_path, offline, train, test, says):
    for split, changes in (("train", train), ("test", test)):
        content = {"images": np.zeros((3, 4, 4, 1), np.uint8), "labels": np.arange(3)} | changes
        np.savez(tmp_path / f"{split}.npz", **{k: v for k, v in content.items() if v is not None})
    with pytest.raises(GradbenchError, match=says) as fault:
        load_in_distribution(Arrays(path=str(tmp_path), roles=OWN_ROLES, holdout=0), offline)
    assert "\n" not in str(fault.value)


def test_a_stray_label_ends_a_run_before_any_memory_is_taken(tmp_path):
    labels = np.arange(60) % 10
    labels[0] = 2**40
    np.savez(tmp_path / "d.npz", images=np.zeros((60, 8, 8, 1), np.uint8), labels=labels)
    words = ("dataset=arrays", "dataset.path=d.npz", "dataset.holdout=5", "backbone=small_cnn")
    said = one_sentence(gradbench("run", *words, "detectors=[msp]", cwd=tmp_path))
    assert "1099511627776" in said
    checked = gradbench("data", "verify", "arrays", "path=d.npz", cwd=tmp_path)
    assert "MemoryError" not in checked.out + checked.err


def test_a_class_folder_that_is_a_link_is_a_class(tmp_path, offline):
    tree(tmp_path, kept={"b": 2}, x={"a": 2})
    (tmp_path / "x" / "b").symlink_to(tmp_path / "kept" / "b")
    (tmp_path / "x" / "a" / "back").symlink_to(tmp_path / "x")  # would never end
    found = Folder(path=str(tmp_path / "x"), roles=OWN_ROLES).load("challenge", offline)
    assert found.classes == ("a", "b")
    assert found.labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("labels", [None, np.full(6, -1), np.array([0, 1, 2**40, 3, 4, 5])])
def test_a_challenge_needs_no_labels(tmp_path, offline, labels):
    content = {"images": np.zeros((6, 4, 4, 3), np.uint8)}
    np.savez(tmp_path / "x.npz", **content, **({} if labels is None else {"labels": labels}))
    own = Arrays(path=str(tmp_path / "x.npz"), roles=OWN_ROLES)
    assert own.count("all", offline) == (6, False)
    assert len(own.load("challenge", offline)) == 6


def test_no_class_can_be_left_out_of_images_without_labels(tmp_path, offline):
    place = tmp_path / "x.npz"
    np.savez(place, images=np.zeros((6, 4, 4, 3), np.uint8), classes=["n01443537", "b"])
    own = Arrays(path=str(place), roles=OWN_ROLES, exclude="tiny_imagenet_cifar10")
    with pytest.raises(GradbenchError, match="x/all has images without labels"):
        own.load("challenge", offline)


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
    with pytest.raises(GradbenchError, match="without labels or names of classes"):
        exclude_classes(made(()), ["n01"])
