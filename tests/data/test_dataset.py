import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from _data_sets import build, save, small

from gradbench.config import group_files
from gradbench.data.dataset import DataSettings
from gradbench.errors import GradbenchError, MissingData

NAMES = set(group_files("dataset"))


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_set_is_described_and_says_whether_it_is_ready(name, offline):
    dataset = build(name)
    assert dataset.description
    assert dataset.terms or name in ("arrays", "folder")
    assert dataset.name == name or name in ("arrays", "folder")
    for role in dataset.roles:
        reason = dataset.ready(role, offline)
        if name in ("digits", "patches"):
            assert reason is None
        else:
            assert reason
            with pytest.raises(MissingData):
                dataset.load(role, offline)
    if "train" in dataset.roles and name not in ("arrays", "folder"):
        assert set(dataset.augment) == {"pad", "flip"}
        assert dataset.holdout > 0
        if not name.startswith("cure_tsr"):  # nothing is published of its images
            assert len(dataset.mean) == len(dataset.std) == dataset.shape[0]
            assert dataset.holdout < dataset.counts["train"]


def test_the_catalogue_needs_no_slow_library(tmp_path):
    code = (
        "import sys;"
        "from gradbench.data.catalogue import list_datasets;"
        "from gradbench.data.dataset import DataSettings\n"
        f"assert len(list_datasets(DataSettings({str(tmp_path)!r}))) == {len(NAMES)}\n"
        "assert not {'torch', 'torchvision', 'sklearn', 'hydra'} & set(sys.modules)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_arrays_become_contiguous_images_with_sources(tmp_path, offline):
    images = save(tmp_path / "small" / "test.npz", classes=np.array([b"a", b"b"]))
    found = small().load("test", offline)
    assert np.array_equal(found.images, images.transpose(0, 3, 1, 2))
    assert found.images.flags.c_contiguous
    assert found.images.dtype == np.uint8
    assert found.labels.dtype == np.int64
    assert found.sources[2] == "small/test/2"
    assert found.classes == ("a", "b")
    assert (found.status, found.note) == ("official", "")


def test_challenge_prefers_the_test_split_and_names_another(tmp_path, offline):
    save(tmp_path / "small" / "train.npz")
    assert small().load("challenge", offline).note == "split train in place of test"
    save(tmp_path / "small" / "test.npz")
    assert small().load("challenge", offline).split == "test"


def test_copies_with_fewer_images_are_parts(tmp_path, offline):
    save(tmp_path / "small" / "test.npz")
    found = small(counts={"test": 10000}, note="a note").load("test", offline)
    assert found.status == "part"
    assert found.note == "6 of 10,000 images; a note"
    assert small(counts={"test": 6}).load("test", offline).status == "official"
    stand_in = small(counts={"test": 7}, status="stand_in").load("test", offline)
    assert (stand_in.status, stand_in.note) == ("stand_in", "6 of 7 images")
    copied = small(copy_note="resized somehow").load("test", offline)
    assert (copied.status, copied.note) == ("regenerated", "resized somehow")


def test_in_distribution_images_take_the_wanted_shape_and_challenges_stay(tmp_path, offline):
    save(tmp_path / "small" / "test.npz", shape=(4, 4, 1))
    dataset = small(shape=[3, 8, 8])
    found = dataset.load("test", offline)
    assert found.shape == (3, 8, 8)
    assert found.note == "4x4 -> 8x8 bilinear antialiased; grey -> RGB"
    assert dataset.load("challenge", offline).shape == (1, 4, 4)


def test_missing_data_names_the_three_ways(tmp_path, offline):
    with pytest.raises(MissingData) as fault:
        build("cifar10").load("train", offline)
    for way in ("cifar10/train.npz", "cifar-10-batches-py/data_batch_1", "data.download=true"):
        assert way in str(fault.value)
    assert "\n" not in str(fault.value)


def test_offline_variable_turns_downloads_off(tmp_path, monkeypatch):
    settings = DataSettings(tmp_path)
    monkeypatch.delenv("GRADBENCH_OFFLINE", raising=False)
    assert settings.online
    assert build("cifar10").ready("test", settings) == "not here, would be downloaded"
    monkeypatch.setenv("GRADBENCH_OFFLINE", "1")
    assert not settings.online
    assert build("cifar10").ready("test", settings) == "not here, downloads off"


def test_unknown_roles_and_settings_are_refused(offline):
    with pytest.raises(GradbenchError, match="role of small"):
        small().load("training", offline)
    with pytest.raises(GradbenchError, match="did you mean stand_in"):
        small(status="standin")
    with pytest.raises(GradbenchError, match="write image or track"):
        small(groups="person")
    with pytest.raises(GradbenchError, match="write 1 or 3"):
        small(shape=[2, 8, 8])


def test_tracks_are_groups(tmp_path, offline):
    names = np.array([b"00/01_00", b"00/01_01", b"01/01_00", b"12345", b"01/01_07", b"00/02_00"])
    save(tmp_path / "small" / "train.npz", names=names)
    groups = small(groups="track").load("train", offline).groups.tolist()
    assert groups == [
        "small/train/00/01",
        "small/train/00/01",
        "small/train/01/01",
        "small/train/3",
        "small/train/01/01",
        "small/train/00/02",
    ]
    save(tmp_path / "small" / "test.npz")
    with pytest.raises(GradbenchError, match="has no names"):
        small(groups="track").load("test", offline)


def test_a_part_holds_out_its_share(tmp_path, offline):
    save(tmp_path / "small" / "train.npz", count=20)
    train = small(counts={"train": 200}).load("train", offline)
    assert small(counts={"train": 200}, holdout=100).held_out(train).sum() == 10
    assert small(holdout=4).held_out(train).sum() == 4


def test_normalisation_is_measured_where_it_is_not_configured(tmp_path, offline):
    images = save(tmp_path / "small" / "train.npz") / 255
    train = small().load("train", offline)
    mean, std = small().normalisation(train)
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(std, images.std((0, 1, 2)), atol=1e-6)
    assert small(mean=[0.5], std=[0.2]).normalisation(train) == ([0.5] * 3, [0.2] * 3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"std": [0.0]}, r"dataset\.std\[0\]=0\.0: write a number, above 0"),
        ({"std": [-1.0]}, "a number, above 0"),
        ({"mean": [0.3, 0.3], "std": [0.2, 0.2]}, "has 3 channels, so write a number for each"),
        ({"mean": [0.3], "std": [0.2] * 3}, "has 3 channels"),
    ],
)
def test_a_normalisation_that_does_not_fit_is_refused(tmp_path, offline, changes, says):
    save(tmp_path / "small" / "train.npz")
    train = small().load("train", offline)
    with pytest.raises(GradbenchError, match=says):
        small(**{"mean": [0.5], "std": [0.5]} | changes).normalisation(train)
