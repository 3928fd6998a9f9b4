"""Published files in their own layout, and a user's own images, all made here."""

import gzip
import re
import struct

import numpy as np
import pytest
from _data_sets import build, picture
from PIL import Image

from gradbench.data.labels import overlapping_classes
from gradbench.errors import GradbenchError, MissingData


def idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    path.write_bytes(head + array.tobytes())


def test_idx_files_are_read_as_torchvision_reads_them(tmp_path, offline):
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    labels = np.array([3, 1, 0, 9], np.uint8)
    for stem in ("train", "t10k"):
        idx(tmp_path / "MNIST" / "raw" / f"{stem}-images-idx3-ubyte", images)
        idx(tmp_path / "MNIST" / "raw" / f"{stem}-labels-idx1-ubyte", labels)
    found = build("mnist").load("test", offline)
    assert np.array_equal(found.images[:, 0], images)
    assert found.labels.tolist() == [3, 1, 0, 9]
    assert (found.status, found.note) == ("part", "4 of 10,000 images")


def test_letters_stand_upright_and_count_from_zero(tmp_path, offline):
    images = np.random.default_rng(0).integers(0, 256, (2, 28, 28), dtype=np.uint8)
    raw = tmp_path / "emnist_letters" / "EMNIST" / "raw"
    idx(raw / "emnist-letters-test-images-idx3-ubyte", images)
    idx(raw / "emnist-letters-test-labels-idx1-ubyte", np.array([1, 26], np.uint8))
    found = build("emnist_letters").load("test", offline)
    assert np.array_equal(found.images[:, 0], images.swapaxes(1, 2))
    assert found.labels.tolist() == [0, 25]


@pytest.mark.parametrize(
    ("name", "split", "file"),
    [
        ("cifar10", "test", "cifar-10-batches-py/test_batch"),
        ("svhn", "test", "test_32x32.mat"),
        ("stl10", "test", "stl10_binary/test_X.bin"),
    ],
)
def test_damaged_published_files_are_named(tmp_path, offline, name, split, file):
    dataset = build(name)
    for needed in dataset.files[split]:
        (tmp_path / needed).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / needed).write_bytes(gzip.compress(b"no batch"))
    assert dataset.ready("test", offline) is None
    with pytest.raises(GradbenchError, match=f"files of {name} under .* not as published"):
        dataset.load("test", offline)


@pytest.fixture
def tiny(tmp_path):
    top = tmp_path / "tiny-imagenet-200"
    for number, wnid in enumerate(("n02", "n01")):
        picture(top / "val" / "images" / f"val_{number}.JPEG", (64, 64), (200 * number, 0, 0))
        picture(top / "train" / wnid / "images" / f"{wnid}_0.JPEG", (64, 64))
    (top / "wnids.txt").write_text("n02\nn01\n")
    (top / "words.txt").write_text("n01\tgoose\nn02\tgoldfish, Carassius auratus\n")
    (top / "val" / "val_annotations.txt").write_text(
        "val_1.JPEG\tn01\t0\t0\t1\t1\nval_0.JPEG\tn02\t0\t0\t1\t1\n"
    )
    return top


def test_tiny_imagenet_as_published(tiny, offline):
    found = build("tiny_imagenet").load("challenge", offline)
    assert found.classes == ("n01 goose", "n02 goldfish")
    assert found.labels.tolist() == [1, 0]  # by number of the file, val_0 first
    assert found.images[:1].max() < 10
    train = build("tiny_imagenet").load("train", offline)
    assert train.labels.tolist() == [0, 1]


def test_tiny_imagenet_without_overlapping_classes(tiny, offline):
    wnid = next(iter(overlapping_classes("tiny_imagenet_cifar10")))
    for path in (tiny / "wnids.txt", tiny / "words.txt", tiny / "val" / "val_annotations.txt"):
        path.write_text(path.read_text().replace("n01", wnid))
    others = sorted(set(overlapping_classes("tiny_imagenet_cifar10")) - {wnid})
    with open(tiny / "wnids.txt", "a") as stream:
        stream.write("\n".join(others))
    found = build("tiny_imagenet", exclude="tiny_imagenet_cifar10").load("challenge", offline)
    assert found.sources.tolist() == ["tiny_imagenet/test/0"]
    assert found.note.endswith("without 23 classes, 1 images left out")


def test_tiny_imagenet_with_an_unknown_class_is_refused(tiny, offline):
    (tiny / "wnids.txt").write_text("n01\n")
    with pytest.raises(GradbenchError, match=r"files of tiny_imagenet under .* not as published"):
        build("tiny_imagenet").load("challenge", offline)


def test_signs_as_published(tmp_path, offline):
    training = tmp_path / "gtsrb" / "GTSRB" / "Training"
    for name in ("00000/00000_00000", "00000/00000_00001", "00014/00003_00000"):
        picture(training / f"{name}.ppm", (20, 30))
    picture(tmp_path / "gtsrb" / "GTSRB" / "Final_Test" / "Images" / "00000.ppm", (16, 16))
    dataset = build("gtsrb")
    train = dataset.load("train", offline)
    assert train.shape == (3, 32, 32)
    assert train.labels.tolist() == [0, 0, 14]
    assert [g.split("train/")[1] for g in train.groups] == ["00000/00000"] * 2 + ["00014/00003"]
    assert train.classes[14] == "stop"
    assert train.note == (
        "3 of 39,209 images; 20x30 -> 32x32 bilinear antialiased, proportions not kept"
    )
    assert dataset.ready("test", offline) is not None  # the table of classes is missing
    table = tmp_path / "gtsrb" / "GT-final_test.csv"
    table.write_text("Filename;Width;Height;ClassId\n00000.ppm;16;16;7\n")
    assert dataset.load("test", offline).labels.tolist() == [7]


def test_places_as_published(tmp_path, offline):
    for number in (1, 2):
        picture(tmp_path / "val_256" / f"Places365_val_{number}.jpg", (256, 256))
    (tmp_path / "categories_places365.txt").write_text("/a/airfield 0\n/z/zen_garden 1\n")
    (tmp_path / "places365_val.txt").write_text("Places365_val_1.jpg 1\nPlaces365_val_2.jpg 0\n")
    found = build("places365").load("challenge", offline)
    assert found.labels.tolist() == [1, 0]
    assert found.classes == ("a/airfield", "z/zen_garden")


def test_textures_are_photographs_of_all_sizes(tmp_path, offline):
    picture(tmp_path / "dtd" / "dtd" / "images" / "banded" / "banded_1.jpg", (50, 40))
    picture(tmp_path / "dtd" / "dtd" / "images" / "woven" / "woven_1.jpg", (60, 60))
    found = build("textures").load("challenge", offline)
    assert found.classes == ("banded", "woven")
    assert found.shape == (3, 32, 32)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for number in range(3):
        picture(folder / "cats" / f"{number}.png", colour=(number, 0, 0))
        picture(folder / "dogs" / f"{number}.JPG", colour=(0, 0, 200))
    return folder


def test_folder_of_classes(photos, offline):
    dataset = build("folder", path=str(photos))
    found = dataset.load("challenge", offline)
    assert (found.name, found.split, found.classes) == ("photos", "all", ("cats", "dogs"))
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.images[:3][:, 0, 0, 0].tolist() == [0, 1, 2]
    assert found.images[np.array([2, 0])][:, 0, 0, 0].tolist() == [2, 0]
    assert dataset.processing_of(found) is None  # 3 of 6 files are JPEG


def test_folder_with_train_and_test(photos, offline):
    divided = photos.parent / "divided"
    for split in ("train", "test"):
        (divided / split).mkdir(parents=True)
    photos.rename(divided / "train" / "photos")
    picture(divided / "test" / "photos" / "x.png", (16, 8))
    dataset = build("folder", path=str(divided), shape=[1, 8, 8])
    assert len(dataset.load("train", offline)) == 6
    test = dataset.load("test", offline)
    assert test.shape == (1, 8, 8)
    assert test.note == "read as grey; 16x8 -> 8x8 bilinear antialiased, proportions not kept"
    assert dataset.load("challenge", offline).split == "test"


def test_folder_lists_unreadable_files_in_one_sentence(photos, offline):
    (photos / "dogs" / "broken.png").write_bytes(b"no picture")
    (photos / "cats" / "empty.jpg").write_bytes(b"")
    with pytest.raises(GradbenchError, match="2 of 8 files") as fault:
        build("folder", path=str(photos)).load("challenge", offline)
    assert "broken.png" in str(fault.value)
    assert "empty.jpg" in str(fault.value)


def test_folder_names_files_that_end_early(photos, offline):
    path = photos / "dogs" / "long.png"
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-60])
    found = build("folder", path=str(photos)).load("challenge", offline)
    with pytest.raises(GradbenchError, match=r"1 of 7 files cannot be read.*long\.png"):
        found.images[:]


def test_wrong_folders_are_refused(photos, offline):
    with pytest.raises(MissingData, match="not set"):
        build("folder").load("challenge", offline)
    picture(photos / "loose.png")
    with pytest.raises(GradbenchError, match="1 images beside its class folders"):
        build("folder", path=str(photos)).load("challenge", offline)
    (photos.parent / "bare").mkdir()
    with pytest.raises(GradbenchError, match="holds no image files"):
        build("folder", path=str(photos.parent / "bare")).load("challenge", offline)


def test_arrays_in_one_file_or_in_a_folder(tmp_path, offline):
    images = np.zeros((4, 5, 5, 1), np.uint8)
    np.savez(tmp_path / "mine.npz", images=images, labels=np.arange(4))
    found = build("arrays", path=str(tmp_path / "mine.npz")).load("challenge", offline)
    assert (found.name, found.split, found.shape) == ("mine", "all", (1, 5, 5))
    folder = tmp_path / "own"
    folder.mkdir()
    np.savez(folder / "train.npz", images=images, labels=np.arange(4))
    dataset = build("arrays", path=str(folder), name="lab")
    assert re.fullmatch(r"lab-\w{6}/train/3", dataset.load("train", offline).sources[3])
    assert dataset.ready("test", offline) == f"no test in {folder}"
    assert dataset.ready("challenge", offline) is None
    with pytest.raises(MissingData, match=r"train\.npz and test\.npz"):
        dataset.load("test", offline)


def test_an_undivided_set_is_divided_by_class(tmp_path, offline):
    images = np.random.default_rng(0).integers(0, 256, (50, 5, 5, 1), dtype=np.uint8)
    path = tmp_path / "mine.npz"
    np.savez(path, images=images, labels=np.arange(50) % 2)
    dataset = build("arrays", path=str(path), holdout=10)
    train, test = (dataset.load(role, offline) for role in ("train", "test"))
    assert (len(train), len(test)) == (40, 10)
    assert np.bincount(test.labels).tolist() == [5, 5]
    assert test.note == "20 % of an undivided set, drawn by class, seed 0"
    whole = dataset.load("challenge", offline)
    assert (whole.split, len(whole)) == ("all", 50)
    # twins are known as such: the same image has one id in every role
    assert sorted([*train.sources, *test.sources]) == sorted(whole.sources)
    place = {source: row for row, source in enumerate(whole.sources)}
    assert all(
        np.array_equal(whole.images[place[s]], image) for s, image in zip(test.sources, test.images)
    )
    with pytest.raises(GradbenchError, match=r"dataset\.holdout=500: mine has 40 training images"):
        build("arrays", path=str(path)).held_out(train)
    np.savez(path, images=images[:2], labels=np.arange(2))
    with pytest.raises(GradbenchError, match="too few images to divide off a test set: 2"):
        dataset.load("test", offline)


def test_an_undivided_folder_keeps_tracks_whole(tmp_path, offline):
    for track in range(10):
        for number in range(4):
            name = f"{track:02d}_{number}.png"
            picture(tmp_path / "mine" / "ab"[track % 2] / name, colour=(track, number, 0))
    dataset = build("folder", path=str(tmp_path / "mine"), groups="track")
    train, test = (dataset.load(role, offline) for role in ("train", "test"))
    assert (len(train), len(test)) == (32, 8)
    assert not set(train.groups) & set(test.groups)
    assert len(set(test.groups)) == 2
    assert test.images[:].shape == (8, 3, 8, 8)
    missing = build("folder", path=str(tmp_path / "nowhere"))
    with pytest.raises(MissingData, match=r"there is nothing at .*nowhere"):
        missing.load("train", offline)


def test_sets_of_one_name_have_sources_of_their_own(tmp_path, offline):
    found = {}
    for place, value in (("a", 0), ("b", 0), ("c", 1)):
        picture(tmp_path / place / "images" / "x" / "1.png", (8 + value, 8))
        images = np.full((2, 4, 4, 1), value, np.uint8)
        np.savez(tmp_path / place / "images.npz", images=images, labels=[0, 1])
        for kind, path in (("folder", "images"), ("arrays", "images.npz")):
            dataset = build(kind, path=str(tmp_path / place / path))
            images = dataset.load("challenge", offline)
            assert images.name == "images"
            found[kind, place] = set(images.sources)
    for kind in ("folder", "arrays"):
        assert found[kind, "a"] == found[kind, "b"]
        assert not found[kind, "a"] & found[kind, "c"]


def test_processing_of_published_files_is_not_that_of_a_copy(tmp_path, offline):
    dataset = build("textures")
    place = tmp_path / "textures" / "test.npz"
    place.parent.mkdir()
    np.savez(place, images=np.zeros((2, 32, 32, 3), np.uint8), labels=[0, 1])
    assert dataset.processing_of(dataset.load("challenge", offline)) == dataset.processing
    place.unlink()
    for name, size in (("1", (600, 400)), ("2", (640, 480)), ("3", (300, 300))):
        picture(tmp_path / "dtd" / "dtd" / "images" / "woven" / f"{name}.jpg", size)
    published = dataset.load("challenge", offline)
    # median 600x400, imitated at 256 pixels
    assert dataset.processing_of(published) == [{"shape": [171, 256], "jpeg": 75}]


def test_processing_of_other_sources(tiny, tmp_path, offline):
    for name, expected in (
        ("tiny_imagenet", [{"shape": [64, 64], "jpeg": 75}]),
        ("patches", [{"shape": [32, 32], "jpeg": 96}]),
        ("digits", None),
    ):
        dataset = build(name)
        assert dataset.processing_of(dataset.load("challenge", offline)) == expected
    for number in range(3):
        picture(tmp_path / "signs" / "0" / f"{number}.ppm", (40, 40))
        picture(tmp_path / "photos" / "a" / f"{number}.jpeg", (40, 50))
    signs = build("folder", path=str(tmp_path / "signs"))
    assert signs.processing_of(signs.load("challenge", offline)) is None
    photos = build("folder", path=str(tmp_path / "photos"))
    found = photos.load("challenge", offline)
    assert photos.processing_of(found) == [{"shape": [50, 40], "jpeg": 90}]
    said = build("folder", path=str(tmp_path / "photos"), processing={"jpeg": 60})
    assert said.processing_of(found) == [{"jpeg": 60}]
