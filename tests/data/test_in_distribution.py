"""Which images are the hold-out, given what is known of the networks' training images."""

from collections import Counter

import numpy as np
import pytest
from _data_sets import build, save, small

from gradbench.data.dataset import DataSettings
from gradbench.data.in_distribution import (
    ALL,
    LEAST,
    SPARED,
    TrainingRecord,
    load_in_distribution,
    read_source_ids,
)
from gradbench.data.roles import stratified_subset
from gradbench.errors import GradbenchError, MissingData

UNKNOWN = TrainingRecord(ALL, certain=False)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    save(root / "small" / "train.npz", 500)
    save(root / "small" / "test.npz", 630)
    save(root / "few" / "train.npz", 500)
    save(root / "few" / "test.npz", SPARED * LEAST - 1)
    return DataSettings(root, download=False)


def divided(settings, *networks, limit=None, **changes):
    return load_in_distribution(
        small(holdout=150, **changes), settings, limit, networks or (TrainingRecord(),)
    )


def names(images):
    return set(images.sources.tolist())


def test_networks_of_ones_own_keep_their_roles(settings):
    found = divided(settings)
    assert (len(found.train), len(found.hold_out), len(found.normal)) == (350, 150, 630)
    assert found.provenance.hold_out_name == "hold-out"
    assert (
        found.provenance.describe_clean_seen("f's training images, hold-out")
        == "f's training images, hold-out"
    )
    said = found.provenance.describe_hold_out(found.hold_out, found.test)
    assert said == "150 training images that f was not trained on"


@pytest.mark.parametrize("known", [UNKNOWN, TrainingRecord(ALL)])
def test_where_f_may_know_every_training_image_the_hold_out_is_of_test_images(settings, known):
    own, found = divided(settings), divided(settings, known)
    assert found.hold_out.sources[0].startswith("small/test/")
    assert not names(found.hold_out) & names(found.normal)
    assert names(found.hold_out) | names(found.normal) == names(found.test)
    assert len(found.hold_out) == 150
    assert Counter(found.hold_out.labels.tolist()) == {0: 75, 1: 75}
    assert np.array_equal(found.hold_out.sources, divided(settings, known).hold_out.sources)
    # its products stay what they are: the bank loses nothing that f is known to have seen
    assert found.train.fingerprint == own.train.fingerprint
    assert found.test.fingerprint == own.test.fingerprint
    said = found.provenance.describe_hold_out(found.hold_out, found.test)
    assert said.startswith("150 of 630 test images, which are not measured: f ")
    assert ("may have been trained" in said) is (known is UNKNOWN)
    assert found.provenance.describe_clean_seen("none") == "none"
    bank, aside = found.provenance.describe_clean_seen("f's training images, hold-out").split(", ")
    assert aside == "hold-out of test images"
    assert (bank == "f's training images") is known.certain


@pytest.mark.parametrize("limit", [100, 400, 480, 481, 600, 630, 1000])
def test_a_limited_part_stays_the_same_where_enough_others_are_left(settings, limit):
    found = divided(settings, UNKNOWN, limit=limit)
    assert not names(found.hold_out) & names(found.normal)
    assert 148 <= len(found.hold_out) <= 150
    if limit <= 480:
        expected = stratified_subset(found.test, limit)
        assert np.array_equal(found.normal.sources, expected.sources)
    else:
        assert len(found.normal) == 480


def test_at_most_a_third_of_the_test_images_leaves_the_measurement(settings):
    found = load_in_distribution(small(holdout=400), settings, None, (UNKNOWN,))
    assert (len(found.hold_out), len(found.normal)) == (210, 420)


def test_too_few_test_images_leave_a_hold_out_that_nobody_can_trust(settings):
    found = divided(settings, UNKNOWN, name="few")
    assert not found.provenance.unseen
    assert len(found.normal) == len(found.test) == 299
    assert found.hold_out.fingerprint == divided(settings, name="few").hold_out.fingerprint
    said = found.provenance.describe_hold_out(found.hold_out, found.test)
    assert said.startswith("150 training images that f may have been trained on: ")
    assert said.endswith("299 test images are too few to take others from")
    assert "f may have been trained on" in found.provenance.describe_clean_seen("hold-out")
    assert "more than 5 %" in found.provenance.threshold_note


def test_a_small_hold_out_that_was_asked_for_is_taken_of_few_test_images(settings):
    found = load_in_distribution(small(name="few", holdout=60), settings, None, (UNKNOWN,))
    assert (found.provenance.role, len(found.hold_out), len(found.normal)) == ("test", 60, 239)


def test_without_a_hold_out_none_is_made(settings):
    found = load_in_distribution(small(holdout=0), settings, None, (UNKNOWN,))
    assert (len(found.train), len(found.hold_out), len(found.normal)) == (500, 0, 630)


def test_checkpoints_of_ones_own_are_recognised_by_their_images(settings):
    own = divided(settings)
    prints = {"train": own.train.fingerprint, "hold_out": own.hold_out.fingerprint}
    known = TrainingRecord(ALL, certain=False, fingerprints=prints)
    found = divided(settings, known)
    assert found.hold_out.fingerprint == own.hold_out.fingerprint
    assert found.provenance == own.provenance
    # another hold-out is another matter: f was trained on 50 images of it
    other = load_in_distribution(small(holdout=200), settings, None, (known,))
    assert other.provenance.role == "test"
    assert other.provenance.reason.endswith("tells of other images or another hold-out than these")
    for name in prints:
        other = TrainingRecord(ALL, fingerprints=prints | {name: "x"})
        assert divided(settings, other).provenance.role == "test"


def listed(found, *extra):
    return TrainingRecord(sources=frozenset({*names(found), *extra}), file="list.txt")


def test_listed_images_are_the_bank_and_none_of_them_is_in_the_hold_out(settings):
    own = divided(settings)
    found = divided(settings, listed(own.train.select(np.arange(300))))
    assert len(found.train) == 300
    assert found.hold_out.fingerprint == own.hold_out.fingerprint
    # of the usual hold-out the network knows ten images: others take their place
    some = listed(own.train.select(np.arange(100)), *own.hold_out.sources[:10])
    found = divided(settings, some)
    assert names(found.train) == some.sources
    assert len(found.hold_out) == 150
    assert not names(found.hold_out) & some.sources
    assert found.hold_out.sources[0].startswith("small/train/")
    assert found.provenance.hold_out_name == "hold-out"


def test_a_list_of_nearly_everything_leaves_the_test_images(settings):
    own = divided(settings)
    known = listed(own.train, *own.hold_out.sources[: 151 - LEAST])
    found = divided(settings, known)
    assert found.provenance.role == "test"
    assert len(found.train) == 350 + 151 - LEAST
    said = found.provenance.describe_hold_out(found.hold_out, found.test)
    assert f"f was trained on all but {LEAST - 1} training images" in said


def test_a_list_that_names_nothing_of_the_set_is_refused(settings):
    known = TrainingRecord(sources=frozenset({"cifar10/train/1"}), file="list.txt")
    with pytest.raises(GradbenchError, match=r"trained_on=list.txt names no training image of sma"):
        divided(settings, known)
    with pytest.raises(GradbenchError, match=r"names 1 test images \(small/test/3\)"):
        divided(settings, listed(divided(settings).train, "small/test/3"))


def test_the_hold_out_serves_all_networks_of_a_run(settings):
    own = divided(settings)
    parts = [listed(own.train.select(np.arange(a, a + 200))) for a in (0, 100)]
    found = divided(settings, *parts)
    assert names(found.train) == parts[0].sources & parts[1].sources
    assert found.hold_out.fingerprint == own.hold_out.fingerprint
    assert divided(settings, TrainingRecord(), UNKNOWN).provenance.role == "test"
    far = listed(own.train.select(np.arange(300, 340)))
    with pytest.raises(GradbenchError, match="no training image in common"):
        divided(settings, parts[0], far)


def test_one_frame_that_f_knows_makes_its_track_known(tmp_path):
    frames = np.array([f"{i % 2}/{i // 4:03d}_{i % 4}" for i in range(400)])
    save(tmp_path / "small" / "train.npz", 400, names=frames.astype("S"))
    save(tmp_path / "small" / "test.npz", 10, names=frames[:10].astype("S"))
    settings = DataSettings(tmp_path, download=False)
    tracks = {"groups": "track", "holdout": 60}
    own = load_in_distribution(small(**tracks), settings)
    first = own.hold_out.sources[0]
    found = load_in_distribution(
        small(**tracks), settings, None, (listed(own.train.select([0]), first),)
    )
    assert found.provenance.role == "train"
    assert own.hold_out.groups[0] not in found.hold_out.groups


def test_names_are_read_line_by_line(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes(b"\xef\xbb\xbfa/train/1\r\n\n  a/train/2  \na/train/2")
    assert read_source_ids(str(path)) == {"a/train/1", "a/train/2"}
    path.write_bytes(b"\xff\xfe\x00")
    for name, reason in ((path, "no UTF-8 text"), (tmp_path / "al", "No such file")):
        with pytest.raises(GradbenchError, match=f"{reason}.*choose all, without_hold_out, or a"):
            read_source_ids(str(name))


def signs(root, tracks=60, frames=5):
    """Save sign-like arrays: tracks of frames, thirty to a class, in any order."""
    names = [f"{t // 30:05d}/{t:05d}_{f:05d}" for t in range(tracks) for f in range(frames)]
    names = np.random.default_rng(0).permutation(names)
    place = root / "gtsrb" / "train.npz"
    images = save(place, len(names), (8, 8, 3)).transpose(0, 2, 3, 1)
    labels = np.array([int(name[:5]) for name in names])
    np.savez(place, images=images.reshape(-1, 8, 8, 3), labels=labels, names=names.astype("S"))
    save(root / "gtsrb" / "test.npz", 40, (8, 8, 3), names=np.arange(40).astype("S"))


def test_no_track_of_signs_is_on_both_sides(tmp_path):
    signs(tmp_path)
    dataset = build("gtsrb", counts={"train": 300}, holdout=60)
    found = load_in_distribution(dataset, DataSettings(tmp_path, download=False))
    assert (len(found.train), len(found.hold_out)) == (240, 60)
    assert not set(found.train.groups) & set(found.hold_out.groups)
    assert len(set(found.hold_out.groups)) == 12  # whole tracks of five frames
    assert found.train.groups[0].startswith("gtsrb/train/0000")
    # the test images' names tell no track, so each stands for itself
    assert np.array_equal(found.test.groups, found.test.sources)


@pytest.mark.parametrize(("held", "enough"), [(49, False), (50, True)])
def test_a_small_part_of_a_training_set_is_not_taken_for_it(tmp_path, held, enough):
    for split, count in (("train", held), ("test", 20)):
        save(tmp_path / "svhn" / f"{split}.npz", count, (32, 32, 3))
    dataset = build("svhn", counts={"train": 1000}, holdout=100)
    settings = DataSettings(tmp_path, download=False)
    if enough:
        assert len(load_in_distribution(dataset, settings).train) == 45
        return
    with pytest.raises(MissingData, match="49 of 1,000 training images are at hand") as fault:
        load_in_distribution(dataset, settings)
    assert str(fault.value).endswith(f"put the whole set at {tmp_path / 'svhn'}")
    (tmp_path / "svhn" / "test.npz").unlink()
    with pytest.raises(MissingData, match="training images and no test images are at hand"):
        load_in_distribution(dataset, settings)
