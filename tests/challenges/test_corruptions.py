"""What holds for every corruption: identity, levels, batches, threads, sizes, bits."""

import _golden
import numpy as np
import pytest
import torch
from _golden import challenge
from _pictures import pictures

from gradbench.challenges.base import CleanBatch
from gradbench.challenges.corruptions.tables import CIFAR, FAMILIES, IMAGENET, TABLES
from gradbench.challenges.produce import ChallengeSetup, produce
from gradbench.config import expand, load_member
from gradbench.errors import GradbenchError
from gradbench.support.instantiate import instantiate

GOLDEN = _golden.read()
RANDOM = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "glass_blur"),
    *("motion_blur", "fog", "frost", "snow", "spatter", "elastic_transform"),
)
ONE_NUMBER = [family for family in FAMILIES if isinstance(CIFAR[family][0], float | int)]
RISING = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "gaussian_blur"),
    *("defocus_blur", "zoom_blur", "fog", "brightness", "contrast", "jpeg_compression"),
    "pixelate",
)
"""Families whose constants rise or fall from level to level."""


def make(family: str, level: int, clean, table: str = "cifar", **settings) -> np.ndarray:
    made = challenge(family, table=table)
    source = ChallengeSetup(made, family, made.strength_at(level), **settings)
    return source.make(clean, np.arange(len(clean)))


# constants


def test_both_tables_hold_five_levels_of_every_family():
    assert len(FAMILIES) == 19
    for table in TABLES.values():
        assert set(table) == set(FAMILIES)
        for family, levels in table.items():
            assert len(levels) == 5
            assert len({np.size(level) for level in (*levels, CIFAR[family][0])}) == 1


def test_some_constants_as_published():
    assert CIFAR["shot_noise"] == (500, 250, 100, 75, 50)
    assert IMAGENET["shot_noise"] == (60, 25, 12, 5, 3)
    assert CIFAR["saturate"][4] == (2.5, 0.2)
    assert IMAGENET["elastic_transform"][0][0] * 224 == pytest.approx(244 * 2)


# levels and strengths


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("quantise", [True, False])
def test_zero_strength_gives_back_the_clean_images(family, quantise):
    clean = pictures(3, 16)
    made = ChallengeSetup(challenge(family), family, 0.0, quantise=quantise).make(
        clean, np.arange(3)
    )
    expected = clean.images if quantise else clean.images.astype(np.float32) / np.float32(255)
    assert made.dtype == expected.dtype
    assert np.array_equal(made, expected)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("family", RISING)
def test_distance_rises_with_the_level(family, table):
    clean = pictures(40)
    apart = [np.abs(make(family, level, clean, table) - clean.images.astype(float)).mean()
             for level in range(1, 6)]  # fmt: skip
    assert apart == sorted(apart)
    assert 0.2 < apart[0] < apart[4] < 90


@pytest.mark.parametrize("family", ONE_NUMBER)
def test_own_strengths(family):
    clean = pictures(2, 16)
    own = challenge(family, strengths=[CIFAR[family][3], CIFAR[family][0]])
    assert own.levels == (1, 2)
    assert own.note == "constants: own"
    made = ChallengeSetup(own, family, own.strength_at(1)).make(clean, np.arange(2))
    assert np.array_equal(made, make(family, 4, clean))
    says = f"{family} strengths.*: (list one or more values|write a)"
    for wrong in ([-1], [], "strong", [True], [1e9], [float("nan")]):
        with pytest.raises(GradbenchError, match=says):
            challenge(family, strengths=wrong)


def test_families_of_several_constants_take_no_strengths():
    for family in set(FAMILIES) - set(ONE_NUMBER):
        with pytest.raises(GradbenchError, match="choose a table, cifar or imagenet"):
            challenge(family, strengths=[0.5])


# random numbers


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_bits_in_any_batch_and_with_any_number_of_threads(family, table):
    clean = pictures(9)
    made = challenge(family, table=table)
    strength = made.strength_at(2)

    def parts(size: int) -> torch.Tensor:
        found = []
        for start in range(0, 9, size):
            rows = slice(start, start + size)
            labels = np.zeros(len(clean.images[rows]), np.int64)
            batch = CleanBatch.from_pixels(clean.images[rows], labels, clean.sources[rows], "cpu")
            found.append(made.perturb(batch, strength, 0))
        return torch.cat(found)

    whole = parts(9)
    assert torch.equal(parts(1), whole)
    torch.set_num_threads(2)
    assert torch.equal(parts(9), whole)


@pytest.mark.parametrize("family", FAMILIES)
def test_seeds_and_images_differ_where_a_family_is_random(family):
    clean = pictures(4)
    first, other = (make(family, 4, clean, seed=seed) for seed in (0, 1))
    assert np.array_equal(first, make(family, 4, clean, seed=0))
    assert np.array_equal(first, other) == (family not in RANDOM)
    same = clean.select(np.array([0, 0]))
    alike = same.__class__("s", "t", same.images, same.labels, np.array(["s/t/0", "s/t/1"]))
    one, two = make(family, 4, alike)
    assert np.array_equal(one, two) == (family not in RANDOM)


# sizes and colours


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_and_colours(family, channels):
    for side, table in ((8, "imagenet"), (28, "cifar"), (64, "imagenet")):
        clean = pictures(3, side, channels)
        made = make(family, 3, clean, table)
        assert made.shape == clean.images.shape
        assert made.dtype == np.uint8
        grey_saturate = family == "saturate" and channels == 1
        if side >= 28:
            assert np.array_equal(made, clean.images) == grey_saturate


@pytest.mark.parametrize("family", FAMILIES)
def test_images_of_224_pixels_and_not_square(family):
    made = make(family, 3, pictures(1, 224), "imagenet")
    assert made.shape == (1, 3, 224, 224)
    assert 1 < np.abs(made - pictures(1, 224).images.astype(float)).mean() < 100
    assert make(family, 3, pictures(2, 24, width=40)).shape == (2, 3, 24, 40)


@pytest.mark.parametrize("family", ["gaussian_blur", "zoom_blur", "contrast", "snow", "fog"])
def test_grey_images_are_treated_as_grey_colour_images(family):
    grey = pictures(3, 32, 1)
    colour = pictures(3, 32, 1)
    three = colour.__class__(
        "pictures", "test", colour.images.repeat(3, 1), colour.labels, colour.sources
    )
    one, all_three = make(family, 3, grey), make(family, 3, three)
    apart = np.abs(all_three.astype(int) - one)
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.001


# bits


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_pixels(name):
    """A changed pixel is a changed version: raise it, and write `golden.txt` anew."""
    family, table = name.split("/")
    made = challenge(family, table=table)
    version, levels = GOLDEN[name]
    assert made.version == version
    found = np.stack([_golden.some_pixels(made, level) for level in made.levels])
    apart = np.abs(found.astype(int) - np.stack(levels))
    # another processor may end on the other side of a grey level
    assert apart.max() <= (3 if family == "jpeg_compression" else 1)
    assert (apart > 0).sum() <= (20 if family == "jpeg_compression" else 1)


@pytest.mark.gpu
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("family", FAMILIES)
def test_devices_agree(family, table):
    if not torch.cuda.is_available():
        pytest.skip("no accelerator")
    clean = pictures(60)
    made = challenge(family, table=table)
    pixels = []
    for device in ("cpu", "cuda"):
        batch = CleanBatch.from_pixels(clean.images, clean.labels, clean.sources, device)
        pixels.append(
            made.to_pixels(made.perturb(batch, made.strength_at(3), 0), batch).astype(int)
        )
    apart = np.abs(pixels[0] - pixels[1])
    assert apart.max() <= 1
    assert (apart > 0).mean() <= 0.001


# pipeline


def test_notes_keys_and_digests(store):
    clean = pictures(4)
    made = challenge("fog")
    images, done = produce(ChallengeSetup(made, "haze", made.strength_at(2)), clean, store)
    assert done is None
    assert (images.name, images.status, images.note) == ("haze", "generated", "constants: cifar")
    assert np.array_equal(images.images[slice(None)], make("fog", 2, clean))
    other = challenge("fog", table="imagenet")
    keys = [ChallengeSetup(m, "x", m.strength_at(2)).keys(clean)[0] for m in (made, other)]
    assert keys[0] != keys[1]


def test_suites():
    eight = dict(expand("challenge", ["papers8"]))
    assert list(eight) == [
        *("noise", "lens_blur", "gaussian_blur", "dirty_lens", "exposure", "snow", "haze"),
        "decolor",
    ]
    families = {name: instantiate("challenge", name, c).family for name, c in eight.items()}
    assert families["dirty_lens"] == "spatter"
    assert families["decolor"] == "saturate"
    assert {instantiate("challenge", n, c).family for n, c in expand("challenge", ["cifar10c"])} \
        == set(FAMILIES)  # fmt: skip


def test_unknown_names():
    with pytest.raises(GradbenchError, match="no challenge named 'fogg': did you mean fog"):
        load_member("challenge", "fogg")
    with pytest.raises(GradbenchError, match="no table of constants named 'small'"):
        challenge("fog", table="small")
