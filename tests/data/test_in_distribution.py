"""The in-distribution images of a run: hold-outs by track, and too small parts of a set."""

import numpy as np
import pytest
from _runs import gradbench, one_sentence
from test_dataset import build, save

from gradbench.data.dataset import DataSettings
from gradbench.data.in_distribution import load_in_distribution
from gradbench.errors import GradbenchError


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
    with pytest.raises(GradbenchError, match="49 of 1,000 training images are at hand"):
        load_in_distribution(dataset, settings)


@pytest.mark.parametrize("command", ["run", "plan"])
def test_svhn_with_a_thousand_images_is_a_hole_in_one_sentence(tmp_path, command):
    save(tmp_path / "svhn" / "train.npz", 1083, (32, 32, 3))
    words = ("experiment=ood_svhn", f"data.root={tmp_path}", "data.download=false", "store=store")
    said = one_sentence(gradbench(command, *words, cwd=tmp_path))
    assert said.startswith("svhn cannot be the in-distribution set here: 1,083 of 73,257 training")
    assert said.endswith(f"put the whole set at {tmp_path / 'svhn'}")
