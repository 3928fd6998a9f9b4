"""Published lists: their counts, how copies are matched with them, OpenOOD's own download."""

import os
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import yaml
from _data_sets import build, picture, small

from gradbench.data import image_lists, in_distribution
from gradbench.data.dataset import DataSettings
from gradbench.data.image_lists import ImageList, Part, read_benchmark
from gradbench.data.imageset import Listed
from gradbench.data.in_distribution import TrainingRecord, load_in_distribution
from gradbench.errors import GradbenchError, MissingData

ROOT = os.environ.get("GRADBENCH_DATA")
COUNTS = {
    "cifar10": {"cifar100": 9000, "tiny_imagenet": 7793, "places365": 35195},
    "cifar100": {"cifar10": 10000, "tiny_imagenet": 6526, "places365": 33773},
}
SAME = {"mnist": 70000, "svhn": 26032, "textures": 5640}
LISTED = {"test": {"count": 4, "without": "toy/validation"}}
ORDER = {"test": sha256((np.arange(6) % 2).astype("<i8").tobytes()).hexdigest()[:16]}
VALIDATION = {"test": {"count": 2, "only": "toy/validation"}}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Return the root of a benchmark of a set `small` with six test images, two of them spared."""
    folder = tmp_path / "lists/openood"
    folder.mkdir(parents=True)
    own = {
        "train": {"file": "train_small", "splits": {}},
        "test": {"file": "test_small", "splits": LISTED},
        "validation": {"file": "val_small", "splits": VALIDATION},
        "near": {"other": {"file": "test_other", "splits": {"test": {"count": 6}}}},
        "far": {},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(own))
    numbers = {"toy/validation": np.array([1, 4]), "toy/validation/names": np.array([b"b", b"e"])}
    np.savez(folder / "numbers.npz", **numbers)
    image_lists.numbers.cache_clear()
    monkeypatch.setattr(image_lists, "FOLDER", tmp_path / "lists")
    yield DataSettings(tmp_path / "data", download=False)
    image_lists.numbers.cache_clear()


def save(settings: DataSettings, split: str = "test", name: str = "small", **more):
    """Write six images whose grey level is their place."""
    path = settings.root / name / f"{split}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    images = np.broadcast_to(np.arange(6, dtype=np.uint8)[:, None, None, None], (6, 4, 4, 3))
    np.savez(path, images=images, labels=np.arange(6) % 2, **more)


def levels(images) -> list[int]:
    return images.images[np.arange(len(images))][:, 0, 0, 0].tolist()


@pytest.mark.parametrize("in_dist", COUNTS)
def test_lists_have_the_published_counts(in_dist):
    benchmark = read_benchmark("openood", in_dist)
    assert {n: one.count for n, one in benchmark.sets.items()} == COUNTS[in_dist] | SAME
    assert benchmark.test.count == 9000
    assert benchmark.validation.count == 1000
    assert [n for n, one in benchmark.sets.items() if one.kind == "near"] == [
        *COUNTS[in_dist]][:2]  # fmt: skip


@pytest.mark.parametrize("in_dist", COUNTS)
def test_numbers_are_those_that_the_counts_say(in_dist):
    arrays = image_lists.numbers("openood")
    benchmark = read_benchmark("openood", in_dist)
    whole = {"cifar10": 10000, "cifar100": 10000, "tiny_imagenet": 10000, "places365": 36500}
    for one in (benchmark.test, benchmark.validation, *benchmark.sets.values()):
        for part in one.splits.values():
            if key := part.only or part.without:
                numbers = arrays[key]
                assert len(np.unique(numbers)) == len(numbers)
                assert numbers.max() < whole[one.dataset]
                left = len(numbers) if part.only else whole[one.dataset] - len(numbers)
                assert left == part.count
    # OpenOOD spares a hundred images of each class, ten of each of a hundred
    spared, each = arrays[f"{in_dist}/validation"], 1000 if in_dist == "cifar10" else 100
    assert set(np.bincount(spared // each)) == {each // 10}
    assert len(set(arrays["cifar10/validation/names"])) == 1000


def test_a_set_without_lists_is_refused_with_those_that_have_them():
    with pytest.raises(GradbenchError, match=r"set of openood named 'gtsrb'.*cifar10"):
        read_benchmark("openood", "gtsrb")


@pytest.mark.parametrize(
    ("more", "matched", "normal"),
    [
        ({"names": np.array(list("bacfed"))}, "name", [1, 2, 3, 5]),
        ({}, "order", [0, 2, 3, 5]),
    ],
)
def test_copies_are_matched_by_name_or_by_order(toy, more, matched, normal):
    save(toy, "train")
    save(toy, **more)
    dataset = small(order={} if more else ORDER)
    train, test, listed, spared = read_benchmark("openood", "small").in_distribution(dataset, toy)
    assert (len(train), len(test)) == (6, 6)
    assert levels(listed) == normal
    assert sorted(levels(listed) + levels(spared)) == list(range(6))
    assert listed.listed == Listed(4, 4, matched)
    assert spared.listed == Listed(2, 2, matched)
    assert listed.sources.tolist() == [f"small/test/{i}" for i in normal]


@pytest.mark.parametrize(("extent", "held"), [("all", [1, 4]), ("without_hold_out", None)])
def test_networks_trained_on_all_images_hold_the_validation_images_out(
    toy, monkeypatch, extent, held
):
    monkeypatch.setattr(in_distribution, "LEAST", 1)
    save(toy, "train")
    save(toy)
    networks = [TrainingRecord(extent)]
    benchmark = read_benchmark("openood", "small")
    dataset = small(order=ORDER, holdout=2)
    clean = load_in_distribution(dataset, toy, None, networks, benchmark)
    assert levels(clean.normal) == [0, 2, 3, 5]
    assert (len(clean.test), len(clean.hold_out), clean.hold_out.split) == (6, 2, "hold-out")
    assert clean.provenance.unseen
    if held:
        assert levels(clean.hold_out) == held
        assert clean.provenance.role == "test"
    assert not set(clean.hold_out.sources) & set(clean.normal.sources)
    limited = load_in_distribution(dataset, toy, 2, networks, benchmark)
    assert set(levels(limited.normal)) < {0, 2, 3, 5}
    assert limited.normal.listed == Listed(4, 4, "order")


def test_a_copy_in_unknown_order_gives_a_part_of_that_size_and_says_so(toy):
    save(toy, "train")
    save(toy)
    *_, listed, spared = read_benchmark("openood", "small").in_distribution(small(), toy)
    assert (len(listed), len(spared)) == (4, 2)
    assert sorted(np.concatenate([listed.labels, spared.labels])) == [0, 0, 0, 1, 1, 1]
    assert listed.listed == Listed(4, 4, "unknown")
    assert listed.status == "part"
    assert "which images of the list these are is not known" in listed.note


def test_numbers_within_classes_count_each_class_in_its_order(toy):
    """Numbers 1 and 4 of a set 0 1 0 1 0 1 by class are the places 2 and 3."""
    save(toy)
    part = Part(2, only="toy/validation", by="class")
    one = ImageList("x", {"test": part}, "small", "near", "openood/small")
    assert levels(one.load(small(order=ORDER), toy)) == [2, 3]


def test_a_full_spectrum_is_that_of_cifar10_alone():
    assert read_benchmark("openood", "cifar10").shifted is None
    assert read_benchmark("openood", "cifar10", full_spectrum=True).shifted.count == 10000
    with pytest.raises(GradbenchError, match="openood/cifar100 has no list of shifted images"):
        read_benchmark("openood", "cifar100", full_spectrum=True)


def test_splits_of_a_list_are_joined_and_what_is_missing_is_counted(toy):
    one = ImageList("x", {"test": Part(6), "train": Part(60)}, "small", "far", "openood/small")
    save(toy)
    images = one.load(small(), toy)
    assert images.listed == Listed(66, 6, "whole")
    assert images.status == "part"
    assert "of a list of 66" in images.note
    save(toy, "train")
    images = one.load(small(), toy)
    assert images.listed == Listed(66, 12, "whole")
    assert levels(images) == [*range(6), *range(6)]
    assert len(set(images.sources)) == 12
    with pytest.raises(MissingData, match="other is not on this machine"):
        one.load(small(name="other"), toy)


def listing(settings: DataSettings, name: str, lines: list[str]) -> None:
    path = settings.root / "benchmark_imglist/small" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def test_the_benchmarks_own_download_goes_first(toy):
    root: Path = toy.root
    save(toy, "train")
    save(toy)
    for name, level in (("a", 10), ("b", 20), ("c", 30)):
        picture(root / f"images_classic/small/{name}.png", (4, 4), (level,) * 3)
    listing(toy, "test_small", ["small/a.png 0", "small/b.png 1", "small/lost.png 1"])
    listing(toy, "val_small", ["small/c.png 0"])
    benchmark = read_benchmark("openood", "small")
    train, test, listed, spared = benchmark.in_distribution(small(shape=(3, 4, 4)), toy)
    assert len(train) == 6  # there is no list of training images: the set's own
    assert (levels(listed), levels(spared), levels(test)) == ([10, 20], [30], [10, 20, 30])
    assert listed.listed == Listed(4, 2, "file")
    assert listed.sources.tolist() == ["small/small/a.png", "small/small/b.png"]
    listing(toy, "train_small", ["small/b.png 0", "small/c.png 1"])
    train = benchmark.in_distribution(small(shape=(3, 4, 4)), toy)[0]
    assert levels(train) == [20, 30]
    assert (train.split, test.split, listed.split) == ("train", "test", "test")
    listing(toy, "test_other", ["small/a.png -1"])
    other = benchmark.sets["other"].load(small(name="other"), toy)
    assert other.listed == Listed(6, 1, "file")
    for line, fault in (
        ("small/a.png", "is no list of images"),
        ("../secret.png -1", "names ../secret.png: a path below"),
        (f"{root}/images_classic/small/a.png -1", "a path below the folder of images is due"),
    ):
        listing(toy, "test_other", ["small/a.png -1", line])
        with pytest.raises(GradbenchError, match=fault):
            benchmark.sets["other"].load(small(name="other"), toy)
    for label, fault in ((-1, "labels count from 0"), (9, "test_small has label 9 but 2 classes")):
        listing(toy, "test_small", [f"small/a.png {label}"])
        with pytest.raises(GradbenchError, match=fault):
            benchmark.in_distribution(small(shape=(3, 4, 4), classes=("p", "q")), toy)


@pytest.mark.data
@pytest.mark.skipif(not ROOT, reason="GRADBENCH_DATA is not set")
def test_real_copies_are_matched():
    data_settings = DataSettings(Path(ROOT), download=False)
    benchmark = read_benchmark("openood", "cifar10")
    _, test, listed, spared = benchmark.in_distribution(build("cifar10"), data_settings)
    assert np.bincount(listed.labels).tolist() == [900] * 10
    assert np.bincount(spared.labels).tolist() == [100] * 10
    assert set(listed.sources) | set(spared.sources) == set(test.sources)
    mnist = benchmark.sets["mnist"].load(build("mnist"), data_settings)
    assert mnist.listed == Listed(70000, 70000, "whole")
    tiny = benchmark.sets["tiny_imagenet"].load(build("tiny_imagenet"), data_settings)
    assert tiny.listed == Listed(7793, 7793, "order")
    # what the list leaves out are 24 classes that CIFAR-10 has too (bullfrog, convertible, …), and
    # the 20 of OpenOOD's validation images
    left = np.sort(np.bincount(tiny.labels, minlength=200))
    assert left[43] <= 3
    assert left[44] >= 45
