"""Pictures of ImageNet with their table: labels of its 1,000 classes, divided, cut to a square."""

import csv
from pathlib import Path

import numpy as np
import pytest
from _data_sets import build
from _runs import TINY, gradbench
from PIL import Image
from test_real_sets import load

from gradbench import load as load_run
from gradbench.data.dataset import DataSettings


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


@pytest.mark.slow
def test_new_pictures_are_scored_as_the_run_read_its_own(tmp_path):
    top = tmp_path / "imagenet_samples"
    top.mkdir()
    lines = ["file,imagenet_index,wnid,name"]
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (45, 20, 40, 3))):
        Image.fromarray(pixels.astype(np.uint8)).save(top / f"{i:02}.png")
        lines.append(f"{i:02}.png,{20 * i},n{i},thing")
    (top / "labels.csv").write_text("\n".join(lines))
    words = (*TINY[:2], "evaluation.replicates=100", "challenges=[]", "detectors=[msp]", "out=run")
    words += ("dataset=imagenet_samples", "dataset.shape=[3,16,16]")
    ran = gradbench("run", *words, "data.root=.", "store=store", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert gradbench("score", "run", "imagenet_samples", cwd=tmp_path).code == 0
    with open(tmp_path / "run" / "scores.csv", newline="") as stream:
        scored = {Path(row["file"]).stem: float(row["msp"]) for row in csv.DictReader(stream)}
    dataset = build("imagenet_samples", shape=[3, 16, 16])
    test = dataset.load("test", DataSettings(tmp_path, download=False))
    expected = load_run(tmp_path / "run").score(test.images[np.arange(len(test))])["msp"]
    names = [path.stem for path in test.images.paths]
    np.testing.assert_allclose([scored[name] for name in names], expected, atol=1e-5)


@pytest.mark.data
def test_labels_are_of_the_classes_in_the_table():
    _, test = load("imagenet_samples", "challenge")
    with open(test.images.paths[0].parent / "labels.csv", newline="") as stream:
        names = {int(row["imagenet_index"]): row["name"] for row in csv.DictReader(stream)}
    different = [n for n in test.labels if names[n].replace("_", " ") != test.classes[n]]
    assert len(test) == 292
    assert [test.classes[n] for n in different] in ([], ["crane bird"])
