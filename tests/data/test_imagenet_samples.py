"""Pictures of ImageNet with their table: labels of its 1,000 classes, divided, cut to a square."""

import csv

import numpy as np
import pytest
from _data_sets import build
from PIL import Image
from test_real_sets import load


@pytest.fixture
def folder(tmp_path):
    """Seven wide pictures: black, with a white square in the middle."""
    top = tmp_path / "imagenet_samples"
    top.mkdir()
    lines = ["file,imagenet_index,wnid,name"]
    for i in range(7):
        pixels = np.zeros((96, 192, 3), np.uint8)
        pixels[:, 48:144] = 255 - i
        Image.fromarray(pixels).save(top / f"{i}.png")
        lines.append(f"{i}.png,{140 * i},n{i},thing")
    (top / "labels.csv").write_text("\n".join(lines))
    return tmp_path


def test_every_third_picture_is_for_training(folder, offline):
    dataset = build("imagenet_samples")
    train, test = (dataset.load(role, offline) for role in ("train", "test"))
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 420, 840], [140, 280, 560, 700])
    assert train.classes == test.classes
    assert (len(test.classes), test.classes[0], test.classes[999]) == (
        1000,
        "tench",
        "toilet tissue",
    )
    assert test.status == "part"


def test_pictures_are_cut_to_their_central_square(folder, offline):
    images = build("imagenet_samples").load("test", offline).images
    assert images.shape == (4, 3, 224, 224)
    assert [int(image.min()) for image in images[np.arange(4)]] == [254, 253, 251, 250]


@pytest.mark.data
def test_labels_are_of_the_classes_in_the_table():
    _, test = load("imagenet_samples", "challenge")
    with open(test.images.paths[0].parent / "labels.csv", newline="") as stream:
        names = {int(row["imagenet_index"]): row["name"] for row in csv.DictReader(stream)}
    different = [n for n in test.labels if names[n].replace("_", " ") != test.classes[n]]
    assert len(test) == 292
    assert [test.classes[n] for n in different] in ([], ["crane bird"])
