"""The stand-in for CURE-TSR: twelve types, each with a known answer, none ever unmarked."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from _cure import draw
from _runs import TINY, gradbench, rows

from gradbench.challenges.corruptions.cure_like import (
    CodecError,
    Decolorization,
    DirtyLens,
    Haze,
    Rain,
    Shadow,
)
from gradbench.challenges.corruptions.tables import CURE_LIKE as TABLE
from gradbench.challenges.counter import image_keys
from gradbench.challenges.produce import ChallengeSetup, produce
from gradbench.config import group_files, load_member
from gradbench.data.cure_tsr import FOLDERS
from gradbench.data.imageset import ImageSet, source_ids
from gradbench.errors import GradbenchError
from gradbench.support.instantiate import instantiate

GOLDEN = {
    "decolorization": (125.00, 71.92),
    "lens_blur": (124.96, 11.21),
    "codec_error": (125.37, 73.07),
    "darkening": (50.00, 28.98),
    "dirty_lens": (116.73, 60.09),
    "exposure": (208.23, 76.20),
    "gaussian_blur": (125.00, 9.00),
    "noise": (125.17, 75.56),
    "rain": (133.10, 70.16),
    "shadow": (91.20, 62.01),
    "snow": (156.90, 74.34),
    "haze": (161.92, 38.75),
}
"""Mean and deviation, in grey levels, of a pattern at level 3."""
RANDOM = {"codec_error", "dirty_lens", "noise", "rain", "shadow", "snow", "haze"}


def build(kind, **settings):
    return instantiate("challenge", kind, load_member("challenge", f"cure_like_{kind}") | settings)


def signs(count=24, size=32, channels=3) -> ImageSet:
    pictures = [draw(1 + i % 14, i).resize((size, size)) for i in range(count)]
    if channels == 1:
        pictures = [picture.convert("L") for picture in pictures]
    pixels = np.stack([np.asarray(picture).reshape(size, size, -1) for picture in pictures])
    pixels = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    sources = source_ids("signs", "test", count)
    return ImageSet("signs", "test", pixels, np.zeros(count, np.int64), sources)


def make(kind, clean, strength, rows=None, **settings):
    source = ChallengeSetup(build(kind), kind, strength, **settings)
    return source.make(clean, np.arange(len(clean)) if rows is None else rows)


def unit(count=64, size=32, value=None):
    images = torch.rand(count, 3, size, size, dtype=torch.float64)
    return images if value is None else torch.full_like(images, value)


def keys(count=64):
    return image_keys(0, "test", source_ids("a", "b", count))


# all types


def test_one_table_has_the_types_of_cure_tsr_and_five_rising_levels():
    assert [*TABLE] == [*FOLDERS]
    files = {name for name in group_files("challenge") if name.startswith("cure_like_")}
    assert files == {f"cure_like_{kind}" for kind in TABLE}
    assert load_member("challenge", "cure_like")["members"] == [f"cure_like_{k}" for k in TABLE]
    for kind, strengths in TABLE.items():
        assert len(strengths) == 5
        assert list(strengths) == sorted(set(strengths))
        challenge = build(kind)
        assert (challenge.type, challenge.strengths) == (kind, strengths)
        assert (challenge.family, challenge.status) == (f"cure_like_{kind}", "stand_in")


@pytest.mark.parametrize("quantise", [True, False])
@pytest.mark.parametrize("kind", TABLE)
def test_strength_zero_changes_nothing_and_nearly_zero_nearly_nothing(kind, quantise):
    clean = signs(4)
    made = make(kind, clean, 0.0, quantise=quantise)
    expected = clean.images if quantise else clean.images.astype(np.float32) / np.float32(255)
    assert np.array_equal(made, expected)
    nearly = make(kind, clean, 1e-7, quantise=False)
    np.testing.assert_allclose(nearly, clean.images / 255, atol=1e-5)


@pytest.mark.parametrize("kind", TABLE)
def test_every_level_is_farther_from_the_clean_images(kind):
    clean = signs()
    away = [np.abs(make(kind, clean, s).astype(int) - clean.images).mean() for s in TABLE[kind]]
    assert away == sorted(away)
    assert away[0] > 0.5
    assert away[4] > 2 * away[0] or kind == "lens_blur"


@pytest.mark.parametrize("kind", TABLE)
@pytest.mark.parametrize(("size", "channels"), [(28, 1), (64, 3)])
def test_other_sizes_and_grey_images(kind, size, channels):
    clean = signs(2, size, channels)
    made = make(kind, clean, TABLE[kind][3])
    assert (made.shape, made.dtype) == (clean.images.shape, np.uint8)
    same = np.array_equal(made, clean.images)
    assert same == (kind == "decolorization" and channels == 1)


@pytest.mark.parametrize("kind", TABLE)
def test_images_depend_on_source_and_seed_alone(kind):
    clean, strength = signs(12), TABLE[kind][2]
    whole = make(kind, clean, strength, quantise=False)
    for part in (np.array([7]), np.array([11, 3, 7]), np.arange(5, 12)):
        assert np.array_equal(make(kind, clean, strength, part, quantise=False), whole[part])
    other = make(kind, clean, strength, seed=1, quantise=False)
    assert np.array_equal(other, whole) != (kind in RANDOM)
    assert not np.isnan(whole).any()
    assert 0 <= whole.min() <= whole.max() <= 1


def pattern() -> ImageSet:
    """Return images of whole numbers that no library has drawn."""
    index = np.arange(16 * 3 * 32 * 32).reshape(16, 3, 32, 32)
    sources = source_ids("pattern", "test", 16)
    pixels = (index * 7919 % 251).astype(np.uint8)
    return ImageSet("pattern", "test", pixels, np.zeros(16, np.int64), sources)


@pytest.mark.parametrize("kind", TABLE)
def test_images_are_what_they_were(kind):
    # A change here is another challenge: raise `version` of the class, or kept products stay wrong.
    made = 255 * make(kind, pattern(), TABLE[kind][2], quantise=False).astype(np.float64)
    assert (made.mean(), made.std()) == pytest.approx(GOLDEN[kind], abs=0.006)


# one by one


def test_colours_are_lost_in_proportion():
    images = unit()
    grey = 0.299 * images[:, :1] + 0.587 * images[:, 1:2] + 0.114 * images[:, 2:]
    torch.testing.assert_close(Decolorization().corrupt(images, None, 1.0), grey.expand_as(images))
    torch.testing.assert_close(
        Decolorization().corrupt(images, None, 0.25), 0.75 * images + 0.25 * grey
    )


def test_light_is_lost_and_added_in_proportion():
    clean = signs(4)
    float_clean = clean.images / 255
    dark, bright = (make(k, clean, 0.5, quantise=False) for k in ("darkening", "exposure"))
    np.testing.assert_allclose(dark, float_clean / 2, atol=1e-6)
    np.testing.assert_allclose(bright, np.minimum(float_clean * 1.5, 1), atol=1e-6)


def test_noise_has_the_deviation_of_the_table():
    clean = signs(40)
    grey = ImageSet("grey", "test", np.full_like(clean.images, 128), clean.labels, clean.sources)
    for sigma in TABLE["noise"][:3]:
        made = make("noise", grey, sigma, quantise=False)
        assert made.std() == pytest.approx(sigma, rel=0.02)


def test_shadows_cover_half_of_an_image_and_take_the_given_share():
    depth = 1 - Shadow().corrupt(unit(200, value=1.0), keys(200), 1.0)[:, 0]
    assert depth.mean().item() == pytest.approx(0.5, abs=0.02)
    assert (depth.min().item(), depth.max().item()) == (0, 1)
    clean = signs(20)
    made = make("shadow", clean, 0.6, quantise=False)
    left = made[clean.images > 0] / (clean.images / 255)[clean.images > 0]
    assert left.min() == pytest.approx(0.4, abs=1e-5)
    assert left.max() == pytest.approx(1, abs=1e-5)


def test_haze_veils_without_turning_anything_round():
    images = unit()
    veiled = Haze().corrupt(images, keys(), 0.5)
    first, second = images[:, 0], images[:, 1]
    apart = (veiled[:, 0] - veiled[:, 1]) / (first - second)
    assert 0.5 - 1e-9 <= apart.min() <= apart.max() <= 1 - 0.5 * 0.7 + 1e-9
    torch.testing.assert_close(Haze().corrupt(unit(value=0.8), keys(), 0.5), unit(value=0.8))


def test_dirt_covers_the_given_share_and_only_grows():
    most = DirtyLens.OPACITY * DirtyLens.DIRT[0]  # of dirt alone on black
    masks = [
        DirtyLens().corrupt(unit(300, value=0.0), keys(300), share)[:, 0] / most
        for share in TABLE["dirty_lens"]
    ]
    for mask, share in zip(masks, TABLE["dirty_lens"]):
        # a little more where edges are repeated, since less is averaged there
        assert (mask >= 0.5).double().mean().item() == pytest.approx(share, abs=0.04)
    assert all((more >= less).all() for less, more in pairwise(masks))


def test_damaged_blocks_have_the_given_share_and_are_never_mended():
    images = unit(100)
    hit = []
    for share in TABLE["codec_error"]:
        changed = (CodecError().corrupt(images, keys(100), share) != images).any(1)
        blocks = changed.view(100, 8, 4, 8, 4).sum((2, 4))
        assert set(blocks.unique().tolist()) == {0, 16}  # whole blocks or nothing
        assert (blocks > 0).double().mean().item() == pytest.approx(share, abs=0.02)
        hit.append(changed)
    assert all((more | ~less).all() for less, more in pairwise(hit))


def test_rain_falls_and_never_dries():
    black = unit(100, value=0.0)
    levels = [Rain().corrupt(black, keys(100), share) for share in TABLE["rain"]]
    assert all((more >= less).all() for less, more in pairwise(levels))
    wet = (levels[0] > levels[0].amin((1, 2, 3), keepdim=True) + 0.05)[:, 0].double()
    # streaks are long downwards and thin across
    down = (wet[:, 1:] * wet[:, :-1]).sum()
    across = (wet[:, :, 1:] * wet[:, :, :-1]).sum()
    assert down > 3 * across


# rows


def test_a_stand_in_is_marked_wherever_its_images_go(store):
    made, attack = produce(ChallengeSetup(build("noise"), "x", 0.1), signs(4), store)
    assert attack is None
    assert made.status == "stand_in"
    assert made.note == "generated like CURE-TSR, parameters of gradbench"
    made, _ = produce(ChallengeSetup(build("noise"), "x", 0.1, quantise=False), signs(4), store)
    assert made.note.startswith("generated like CURE-TSR, parameters of gradbench; not rounded")


@pytest.mark.slow
def test_a_run_says_so_in_every_row(tmp_path):
    words = [w for w in TINY if not w.startswith(("challenges=", "levels="))]
    ran = gradbench("run", *words, "challenges=[cure_like_rain]", "level=4", cwd=tmp_path)
    assert ran.code == 0, ran.err
    found = rows(tmp_path, challenge="cure_like_rain")
    found = [row for row in found if row["metric"] != "auroc_difference"]  # of two detectors
    assert {row["source"] for row in found} == {"stand_in"}
    noted = [row for row in found if row["fold"] == "all"]
    assert all("generated like CURE-TSR, parameters of gradbench" in r["note"] for r in noted)
    table = Path(tmp_path / "run" / "table.md").read_text()
    assert "| stand_in" in table


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"strengths": [0.1, 1.5]}, "cure_like_haze strengths=.* values from 0 to 1"),
        ({"strengths": []}, "list one or more values"),
    ],
)
def test_settings_that_there_are_not(settings, words):
    with pytest.raises(GradbenchError, match=words):
        build("haze", **settings)
