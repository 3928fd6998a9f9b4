"""Which images are held out: whole groups, and the same ones as ever where groups have a class."""

import hashlib

import numpy as np
import pytest

from gradbench.data.roles import draw_hold_out


def digest(chosen):
    return hashlib.sha256(np.packbits(chosen).tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("size", "frames", "classes", "count", "expected"),
    [(50000, 1, 10, 5000, "87ce1ec112c8652c"), (39210, 30, 43, 4000, "4f34dae6a34aa2c7")],
)
def test_trained_networks_keep_their_hold_out(size, frames, classes, count, expected):
    """The digests were taken before groups of several classes were kept whole."""
    track = np.arange(size) // frames
    labels = np.random.default_rng(1).integers(0, classes, track.max() + 1)[track]
    groups = np.array([f"set/train/{t}" for t in track])
    assert digest(draw_hold_out(labels, groups, count)) == expected


def test_groups_of_several_classes_stay_whole():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 60, 600)
    labels = np.where(rng.random(600) < 0.7, groups % 3, rng.integers(0, 3, 600))
    chosen = draw_hold_out(labels, groups, 120)
    assert not set(groups[chosen]) & set(groups[~chosen])
    assert 120 <= chosen.sum() <= 160


def test_fewer_images_than_classes_are_of_any_classes():
    """Not of the first ones, as long as no class has a whole image due."""
    labels = np.arange(400) % 200
    chosen = labels[draw_hold_out(labels, np.arange(400), 50)]
    assert len(set(chosen.tolist())) == 50
    assert 60 < chosen.mean() < 140
