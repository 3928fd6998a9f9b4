"""The published archive of CIFAR-10-C: verified, matched to a shuffled test set, read by level."""

import numpy as np
import pytest

from gradbench.challenges import archive as room
from gradbench.challenges.archive import (
    Archive,
    UnmatchedImages,
    archive_of,
    check_source,
    match_images,
    published_images,
)
from gradbench.challenges.controls import Identity
from gradbench.challenges.corruptions.digital import Brightness, Contrast
from gradbench.challenges.corruptions.noise import GaussianNoise
from gradbench.challenges.produce import ChallengeSetup
from gradbench.data.imageset import ImageSet, source_ids
from gradbench.data.in_distribution import InDistribution
from gradbench.data.roles import stratified_subset
from gradbench.errors import GradbenchError, MissingData

EACH = 120
"""Images a level of the small archive."""


def clean(order: np.ndarray | None = None) -> ImageSet:
    """Return a test set of ten classes, in official order or another one."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 200, (EACH, 3, 4, 4))
    fine = coarse.repeat(8, 2).repeat(8, 3) + rng.integers(0, 40, (EACH, 3, 32, 32))
    labels = rng.permutation(np.arange(EACH) % 10)
    images = ImageSet(
        "cifar10", "test", fine.astype(np.uint8), labels, source_ids("cifar10", "test", EACH)
    )
    if order is None:
        return images
    moved = images.select(order)
    return ImageSet("cifar10", "test", moved.images, moved.labels, images.sources)


def made(images: ImageSet, challenge, level: int) -> np.ndarray:
    source = ChallengeSetup(challenge, challenge.family, challenge.strength_at(level))
    return source.make(images, np.arange(len(images))).transpose(0, 2, 3, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return an archive of two families made by our own generator, in official order."""
    home = tmp_path_factory.mktemp("data") / "CIFAR-10-C"
    home.mkdir()
    images = clean()
    for challenge in (Brightness(), Contrast()):
        levels = [made(images, challenge, level) for level in challenge.levels]
        np.save(home / f"{challenge.family}.npy", np.concatenate(levels))
    np.save(home / "labels.npy", np.tile(images.labels, 5).astype(np.uint8))
    return home


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(room, "EACH", EACH)


def roles(test: ImageSet, limit: int | None = None) -> InDistribution:
    return InDistribution(test, test, test, stratified_subset(test, limit))


def read(folder, store, test, limit=None, challenge=None, level=3, grouped=True) -> ImageSet:
    challenge = challenge or Contrast()
    arguments = (challenge, level, f"contrast {level}", roles(test, limit), grouped, store)
    return published_images(Archive(folder), *arguments)


def config(source: str) -> dict:
    return {"challenge": {"source": source}}


def test_levels_are_read_in_the_official_order(folder, store):
    images = clean()
    for level in range(1, 6):
        found = read(folder, store, images, level=level)
        assert (found.name, found.status) == (f"contrast {level}", "official")
        assert found.note == "archive CIFAR-10-C; constants: cifar"
        expected = made(images, Contrast(), level).transpose(0, 3, 1, 2)
        assert np.array_equal(found.images[slice(None)], expected)
        assert found.sources.tolist() == images.sources.tolist()
        assert found.groups.tolist() == images.groups.tolist()
    assert not store.made


@pytest.mark.parametrize("limit", [None, 40])
def test_a_shuffled_test_set_is_matched(folder, store, limit):
    shuffled = clean(np.random.default_rng(1).permutation(EACH))
    found = read(folder, store, shuffled, limit)
    normal = stratified_subset(shuffled, limit)
    assert len(found) == (limit or EACH)
    expected = made(normal, Contrast(), 3).transpose(0, 3, 1, 2)
    assert np.array_equal(found.images[slice(None)], expected)
    assert found.sources.tolist() == normal.sources.tolist()
    assert found.labels.tolist() == normal.labels.tolist()
    assert "matched to the test images, which are in another order" in found.note
    assert [key.step for key in store.made] == ["archive_order"]
    read(folder, store, shuffled, limit, level=5)
    assert len(store.made) == 1


def test_images_that_are_not_there_are_refused_by_grouped_splits_alone(folder, store):
    shuffled = clean(np.random.default_rng(1).permutation(EACH))
    pixels = shuffled.images.copy()
    pixels[7] = 255 - pixels[7]
    strange = ImageSet("cifar10", "test", pixels, shuffled.labels, shuffled.sources)
    with pytest.raises(GradbenchError) as caught:
        read(folder, store, strange)
    text = str(caught.value)
    assert "grouped split" in text
    assert "image 7 differs from it by" in text
    assert "choose protocol.split=random or choose challenge.source=generated" in text
    assert not store.made
    loose = read(folder, store, strange, limit=40, grouped=False)
    assert len(loose) == 40
    assert "not matched" in loose.note
    assert not set(loose.groups) & set(strange.groups)


def test_two_images_with_one_row_are_refused(folder, store):
    shuffled = clean(np.random.default_rng(1).permutation(EACH))
    pixels = shuffled.images.copy()
    one, other = np.flatnonzero(shuffled.labels == 4)[:2]
    pixels[one] = pixels[other]
    twins = ImageSet("cifar10", "test", pixels, shuffled.labels, shuffled.sources)
    with pytest.raises(GradbenchError, match=f"images {one} and {other} have the same nearest row"):
        read(folder, store, twins)


def test_matching_needs_brightness(folder, store, tmp_path):
    for name in ("contrast.npy", "labels.npy"):
        (tmp_path / name).symlink_to(folder / name)
    assert len(read(tmp_path, store, clean())) == EACH  # labels agree in order
    with pytest.raises(GradbenchError, match=r"no brightness\.npy to match images by"):
        read(tmp_path, store, clean(np.random.default_rng(1).permutation(EACH)))


@pytest.mark.parametrize(
    ("name", "damage", "text"),
    [
        ("contrast.npy", lambda a: a[:-1], r"is \(599, 32, 32, 3\) uint8 where \(600, 32, 32, 3\)"),
        ("contrast.npy", lambda a: a.astype(np.float32), "float32 where"),
        ("contrast.npy", lambda a: a.transpose(0, 3, 1, 2), r"is \(600, 3, 32, 32\)"),
        ("labels.npy", lambda a: a[:-1], r"is \(599,\) uint8 where \(600,\) whole numbers"),
        ("labels.npy", lambda a: a.astype(float), "float64 where"),
        ("labels.npy", lambda a: np.append((a[:1] + 1) % 10, a[1:]), "not hold the same labels"),
        ("labels.npy", lambda a: a + 7, "does not hold the same labels from 0 to 9"),
    ],
)
def test_damaged_files_are_one_sentence(folder, store, tmp_path, name, damage, text):
    for file in folder.iterdir():
        if file.name != name:
            (tmp_path / file.name).symlink_to(file)
    np.save(tmp_path / name, damage(np.load(folder / name)))
    with pytest.raises(GradbenchError, match=text) as caught:
        read(tmp_path, store, clean())
    assert str(caught.value).endswith("there, or choose challenge.source=generated")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_array(folder, store, tmp_path):
    (tmp_path / "labels.npy").symlink_to(folder / "labels.npy")
    (tmp_path / "contrast.npy").write_bytes(b"no array")
    with pytest.raises(GradbenchError, match=r"contrast\.npy cannot be read"):
        read(tmp_path, store, clean())


def test_labels_that_no_row_has(folder):
    with pytest.raises(UnmatchedImages, match="no row has the label 3 of image 1"):
        match_images(
            np.zeros((2, 4), np.uint8), np.array([0, 3]), np.zeros((1, 4), np.uint8), np.zeros(1)
        )


def test_which_source_is_taken(folder):
    root = folder.parent

    def taken(challenge, source, dataset="cifar10", root=root):
        return archive_of(challenge, config(source), dataset, root)

    assert taken(Contrast(), "auto") == Archive(folder)
    assert taken(Contrast(), "archive") == Archive(folder)
    assert taken(Contrast(), "generated") is None
    assert taken(Contrast(table="imagenet"), "auto") is None
    assert taken(Contrast(strengths=[0.5]), "auto") is None
    assert taken(Contrast(), "auto", dataset="digits") is None
    assert taken(GaussianNoise(), "auto") is None  # is not among the files
    assert taken(Identity(), "archive") is None
    with pytest.raises(MissingData, match=r"does not hold gaussian_noise\.npy and labels\.npy"):
        taken(GaussianNoise(), "archive")
    assert taken(Contrast(), "auto", root=root / "elsewhere") is None


def test_sources_that_make_no_sense_are_refused_before_any_work():
    check_source(config("archive"), "cifar10", [Contrast(), Identity()])
    for challenge, dataset in (
        (Contrast(table="imagenet"), "cifar10"),
        (Contrast(strengths=[0.1]), "cifar10"),
        (Contrast(), "digits"),
    ):
        with pytest.raises(GradbenchError, match="contrast of cifar10 with table=cifar alone"):
            check_source(config("archive"), dataset, [challenge])
