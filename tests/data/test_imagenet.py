"""ImageNet in OpenOOD's folders: classes, labels, the lists of its validation images."""

from pathlib import Path

import numpy as np
import pytest
from _data_sets import build, picture
from PIL import Image

from gradbench.data.dataset import DataSettings
from gradbench.data.image_lists import numbers, read_benchmark
from gradbench.data.imageset import Listed
from gradbench.data.picture import Resampling, fit_picture
from gradbench.errors import GradbenchError

HOME = "images_largescale/imagenet_1k"
ARRAYS = numbers("openood")
LABELS = ARRAYS["imagenet/labels"]
SUBSET = ARRAYS["imagenet200/classes"]


def name(place: int) -> str:
    return f"ILSVRC2012_val_{place + 1:08d}"


@pytest.fixture
def here(tmp_path):
    """Return a root with three training classes and ten validation images of two of the 200."""
    for wnid in ARRAYS["imagenet200/wnids"]:
        for image in range(3):
            picture(tmp_path / HOME / "train" / wnid / f"{wnid}_{image}.JPEG", (20, 16))
    for place in np.flatnonzero(np.isin(LABELS, [SUBSET[0], SUBSET[7], 0]))[::-1]:
        picture(tmp_path / HOME / "val" / f"{name(place)}.JPEG", (20, 16))
    return DataSettings(tmp_path, download=False)


def test_labels_are_those_of_the_published_validation_images():
    # of ILSVRC2012_val_00000001 to …5, as everybody prints them
    assert LABELS[:5].tolist() == [65, 970, 230, 809, 516]
    assert np.bincount(LABELS).tolist() == [50] * 1000
    assert ARRAYS["imagenet200/wnids"][:2].tolist() == ["n01443537", "n01484850"]
    assert (len(SUBSET), SUBSET[:2].tolist()) == (200, [1, 2])


@pytest.mark.parametrize(("in_dist", "count"), [("imagenet", 5000), ("imagenet200", 1000)])
def test_lists_have_the_published_counts(in_dist, count):
    benchmark = read_benchmark("openood", in_dist)
    assert (benchmark.test.count, benchmark.validation.count) == (9 * count, count)
    assert {n: one.count for n, one in benchmark.sets.items()} == {
        "ssb_hard": 49000, "ninco": 5879, "inaturalist": 10000, "textures": 5160,
        "openimage_o": 15869,
    }  # fmt: skip
    spared = ARRAYS[f"{in_dist}/validation/names"]
    labels = LABELS[[int(one[-8:]) - 1 for one in spared]]
    assert set(np.bincount(labels)[np.unique(labels)]) == {5}
    assert len(np.unique(labels)) == count // 5


def test_classes_of_a_benchmark_are_numbered_anew_and_images_found_by_name(here):
    dataset = build("imagenet200", each=2)
    benchmark = read_benchmark("openood", "imagenet200")
    train, test, listed, spared = benchmark.in_distribution(dataset, here)
    assert (len(train), len(test)) == (400, 100)
    assert np.bincount(train.labels).tolist() == [2] * 200
    assert sorted(set(test.labels)) == [0, 7]
    assert (len(listed), len(spared)) == (90, 10)
    assert listed.listed == Listed(9000, 90, "name")
    assert train.shape == test.shape == (3, 224, 224)


def test_a_training_set_without_some_classes_is_refused(here):
    with pytest.raises(GradbenchError, match="has 200 classes, ImageNet has 1,000"):
        build("imagenet").load("train", here)


def test_sets_with_a_list_of_others_leave_these_out(here):
    root: Path = here.root
    for stem in (*ARRAYS["imagenet/openimage_o/names"][:3], "a", "b"):
        picture(root / "images_largescale/openimage_o/images" / f"{stem}.jpg")
    for stem in ("banded_0002", "cobwebbed_0040", "honeycombed_0043", "cracked_0001"):
        picture(root / "dtd/dtd/images" / stem.split("_")[0] / f"{stem}.jpg")
    sets = read_benchmark("openood", "imagenet").sets
    images = sets["openimage_o"].load(build("openimage_o"), here)
    assert images.listed == Listed(15869, 2, "name")
    images = sets["textures"].load(build("textures"), here)
    kept = {path.stem for path in images.images.paths}
    assert kept == {"banded_0002", "cracked_0001"}


def test_a_photograph_is_read_as_if_brought_to_256_and_cut_to_224():
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    photograph = small.resize((640, 480), Image.Resampling.BICUBIC)
    ours = fit_picture(photograph, (3, 224, 224), Resampling(mode="centre")).astype(int)
    usual = photograph.resize((341, 256), Image.Resampling.BILINEAR)
    left, top = round((341 - 224) / 2), (256 - 224) // 2
    usual = np.asarray(usual.crop((left, top, left + 224, top + 224))).transpose(2, 0, 1)
    assert np.abs(ours - usual).mean() < 3  # half a pixel apart, at most
    squashed = fit_picture(photograph, (3, 224, 224), Resampling()).astype(int)
    assert np.abs(squashed - usual).mean() > 10
